//! A make-believe stock market: a dozen symbols that walk at random.
//!
//! It knows neither the clock nor the network; time comes as an argument, and randomness from a seed.

use serde_json::{Value, json};
use std::collections::VecDeque;

/// How many past prices a stock remembers for the page's first drawing.
pub const PAST_PRICES_MAX: usize = 60;

const LISTED: [(&str, &str, i64); 12] = [
    ("ACME", "Acme Tools", 18_240),
    ("BOLT", "Bolt Freight", 4_415),
    ("CRUX", "Crux Mining", 7_690),
    ("DUNE", "Dune Energy", 12_105),
    ("ECHO", "Echo Audio", 3_150),
    ("FERN", "Fern Foods", 5_835),
    ("GALE", "Gale Wind", 9_420),
    ("HALO", "Halo Health", 24_760),
    ("IRIS", "Iris Optics", 14_380),
    ("JADE", "Jade Motors", 6_275),
    ("KITE", "Kite Air", 2_890),
    ("LUMA", "Luma Light", 31_020),
];

/// All stocks, and the orders filled so far.
#[derive(Debug)]
pub struct Market {
    stocks: Vec<Stock>,
    random: Random,
    trades: u64,
}

/// One stock; prices are whole cents.
#[derive(Debug)]
struct Stock {
    symbol: &'static str,
    name: &'static str,
    open_cents: i64,
    price_cents: i64,
    sequence: u64,
    past_cents: VecDeque<i64>,
}

/// Which way a trade goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The trader gets the stock.
    Buy,
    /// The trader gives the stock.
    Sell,
}

/// A filled order.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Trade {
    /// Unique within a run.
    pub id: String,
    /// From the trader's side.
    pub side: Side,
    /// The stock.
    pub symbol: &'static str,
    /// Shares.
    pub quantity: u32,
    /// The price of one share.
    pub filled_price: f64,
    /// Who traded.
    pub trader: String,
    /// Unix time in milliseconds.
    pub time: u64,
}

impl Market {
    /// Opens the market; `seed` decides how it walks.
    pub fn new(seed: u64) -> Self {
        let mut market = Self {
            stocks: LISTED
                .iter()
                .map(|&(symbol, name, open_cents)| Stock {
                    symbol,
                    name,
                    open_cents,
                    price_cents: open_cents,
                    sequence: 0,
                    past_cents: VecDeque::from([open_cents]),
                })
                .collect(),
            random: Random(seed),
            trades: 0,
        };
        for _ in 0..PAST_PRICES_MAX {
            (0..market.stocks.len()).for_each(|at| market.walk(at));
        }
        market
    }

    /// Moves about every third stock and says the new prices as events for `POST /v1/events`.
    pub fn tick(&mut self, time_ms: u64) -> Vec<Value> {
        let mut events = Vec::new();
        for at in 0..self.stocks.len() {
            if self.random.below(3) == 0 {
                self.walk(at);
                let stock = &mut self.stocks[at];
                stock.sequence += 1;
                events.push(json!({
                    "channel": format!("prices.{}", stock.symbol),
                    "event": stock.symbol,
                    "data": stock.price(time_ms),
                }));
            }
        }
        events
    }

    /// Fills an order at about the present price, or `None` if there is no such stock.
    pub fn fill(&mut self, side: Side, symbol: &str, quantity: u32, trader: &str, time_ms: u64) -> Option<Trade> {
        let stock = self.stocks.iter().find(|stock| stock.symbol == symbol)?;
        let slip_cents = self.random.below(3) as i64;
        let cents = match side {
            Side::Buy => stock.price_cents + slip_cents,
            Side::Sell => stock.price_cents - slip_cents,
        };
        self.trades += 1;
        Some(Trade {
            id: format!("T{:05}", self.trades),
            side,
            symbol: stock.symbol,
            quantity,
            filled_price: money(cents),
            trader: trader.to_owned(),
            time: time_ms,
        })
    }

    /// A trade of somebody else, about each sixth time it is asked.
    pub fn somebody_trades(&mut self, time_ms: u64) -> Option<Trade> {
        if self.random.below(6) != 0 {
            return None;
        }
        let side = if self.random.below(2) == 0 { Side::Buy } else { Side::Sell };
        let symbol = LISTED[self.random.below(LISTED.len() as u64) as usize].0;
        let quantity = (1 + self.random.below(40) as u32) * 5;
        self.fill(side, symbol, quantity, "market", time_ms)
    }

    /// Everything that a page needs to draw itself before the first event.
    pub fn snapshot(&self, time_ms: u64) -> Value {
        let stocks: Vec<Value> = self
            .stocks
            .iter()
            .map(|stock| {
                let mut value = stock.price(time_ms);
                value["name"] = stock.name.into();
                value["past"] = stock.past_cents.iter().map(|cents| money(*cents)).collect();
                value
            })
            .collect();
        json!({ "stocks": stocks })
    }

    /// A step of at most about half a percent, drawn a little towards the opening price so that no stock runs away.
    fn walk(&mut self, at: usize) {
        let stock = &mut self.stocks[at];
        let range = (stock.open_cents / 220).max(2);
        let spread = self.random.below(2 * range as u64 + 1) as i64 - range;
        let pull = (stock.open_cents - stock.price_cents) / 40;
        stock.price_cents = (stock.price_cents + spread + pull).max(100);
        if stock.past_cents.len() == PAST_PRICES_MAX {
            stock.past_cents.pop_front();
        }
        stock.past_cents.push_back(stock.price_cents);
    }
}

impl Stock {
    /// `change` is in percent of the opening price; `sequence` counts the stock's events from 1, so that a page can
    /// tell that it missed none.
    fn price(&self, time_ms: u64) -> Value {
        let change = (self.price_cents - self.open_cents) as f64 * 100.0 / self.open_cents as f64;
        json!({
            "symbol": self.symbol,
            "price": money(self.price_cents),
            "change": (change * 100.0).round() / 100.0,
            "sequence": self.sequence,
            "time": time_ms,
        })
    }
}

fn money(cents: i64) -> f64 {
    cents as f64 / 100.0
}

/// SplitMix64: a few lines of randomness that are good enough for prices, and for nothing secret.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_move_stay_positive_and_are_numbered_without_a_hole() {
        let mut market = Market::new(7);
        let mut last = std::collections::HashMap::new();
        for time_ms in 0..5000 {
            for event in market.tick(time_ms) {
                let data = &event["data"];
                let symbol = data["symbol"].as_str().expect("a symbol").to_owned();
                assert_eq!(event["channel"], format!("prices.{symbol}"));
                assert_eq!(event["event"], symbol);
                assert_eq!(data["time"], time_ms);
                assert!(data["price"].as_f64().expect("a number") >= 1.0);
                assert!(data["change"].as_f64().expect("a number").abs() < 50.0);
                let sequence = data["sequence"].as_u64().expect("a number");
                assert_eq!(sequence, last.insert(symbol, sequence).unwrap_or(0) + 1);
            }
        }
        assert_eq!(last.len(), LISTED.len());
    }

    #[test]
    fn the_same_seed_walks_the_same_way() {
        let walk = |seed| {
            (0..20).flat_map({
                let mut market = Market::new(seed);
                move |time_ms| market.tick(time_ms)
            })
        };
        assert!(walk(1).eq(walk(1)));
        assert!(!walk(1).eq(walk(2)));
    }

    #[test]
    fn orders_fill_near_the_price_and_never_for_an_unknown_stock() {
        let mut market = Market::new(7);
        let price = market.snapshot(0)["stocks"][0]["price"].as_f64().expect("a number");
        let bought = market.fill(Side::Buy, "ACME", 5, "me", 1).expect("ACME is listed");
        let sold = market.fill(Side::Sell, "ACME", 5, "me", 2).expect("ACME is listed");
        assert!(bought.filled_price >= price && bought.filled_price < price + 0.03);
        assert!(sold.filled_price <= price && sold.filled_price > price - 0.03);
        assert_ne!(bought.id, sold.id);
        assert_eq!(market.fill(Side::Buy, "NONE", 5, "me", 3), None);
    }

    #[test]
    fn a_snapshot_has_enough_to_draw() {
        let snapshot = Market::new(7).snapshot(9);
        let stocks = snapshot["stocks"].as_array().expect("stocks");
        assert_eq!(stocks.len(), 12);
        for stock in stocks {
            assert_eq!(stock["past"].as_array().expect("past prices").len(), PAST_PRICES_MAX);
            assert!(stock["name"].is_string());
        }
    }
}
