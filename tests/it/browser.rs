//! The demo in a real browser: over TLS and HTTP/2, with prices, orders, many streams, and all transports.

use crate::support::browser::Browser;
use crate::support::program::Program;

/// More than the six connections a host that browsers open over HTTP/1.1.
const STREAMS: u64 = 20;

#[tokio::test]
async fn the_trading_desk_works_in_chromium_over_http2() {
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--publish", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut demo = Program::start(&arguments);
    let line = demo.line_with("https://").await;
    let url = line.split_whitespace().find(|word| word.starts_with("https://")).expect("a URL").to_owned();
    let browser = Browser::start().await;
    browser.client.goto(&url).await.expect("the page opens");

    prices_move(&browser).await;
    an_order_is_confirmed_and_on_the_tape(&browser).await;
    many_streams_are_live_at_once(&browser).await;
    browser.click("close-many").await;
    for transport in ["long_poll", "websocket", "sse"] {
        the_transport_changes_without_a_loss(&browser, transport).await;
    }
    assert_eq!(browser.number("reconnects").await, 0);

    browser.close().await;
    assert_eq!(demo.interrupt().await, Some(0), "the demo ends well");
}

async fn prices_move(browser: &Browser) {
    browser
        .wait_until(
            "a live connection",
            "return document.querySelector('[data-testid=state]')?.dataset.state === 'open'",
        )
        .await;
    let protocol = browser.run("return performance.getEntriesByType('navigation')[0].nextHopProtocol").await;
    assert_eq!(protocol, "h2", "the page came over HTTP/2");
    browser
        .wait_until("its protocol", "return document.querySelector('[data-testid=protocol]').textContent === 'HTTP/2'")
        .await;
    assert_eq!(browser.run("return document.querySelectorAll('.card').length").await, 12);
    browser
        .run(
            "window.first = [...document.querySelectorAll('.card .price')].map(node => node.textContent);\
             window.moved = () => [...document.querySelectorAll('.card .price')].filter((node, i) => node.textContent !== first[i]).length",
        )
        .await;
    browser
        .wait_until("all prices moving", "window.most = Math.max(window.most ?? 0, moved()); return most >= 11")
        .await;
    browser
        .wait_until("a cursor", "return document.querySelector('[data-testid=cursor]').textContent.length > 1")
        .await;
    nothing_is_missed(browser).await;
}

async fn an_order_is_confirmed_and_on_the_tape(browser: &Browser) {
    let open = "return document.querySelector('[data-testid=orders-state]').dataset.state === 'open'";
    browser.wait_until("an open order line", open).await;
    browser.click("card-HALO").await;
    assert_eq!(browser.run("return document.querySelector('[data-testid=order-symbol]').value").await, "HALO");
    browser.click("place-order").await;
    let confirmed = "return document.querySelector('[data-testid=confirmation]').dataset.kind === 'confirmation'";
    browser.wait_until("the order's confirmation", confirmed).await;
    let confirmation = browser.text("confirmation").await;
    assert!(confirmation.starts_with("Bought 10 HALO at "), "{confirmation}");
    let taped = "const id = document.querySelector('[data-testid=confirmation]').dataset.id;\
        return document.querySelector(`[data-testid=tape] tr[data-id='${id}'][data-mine=true]`) !== null";
    browser.wait_until("the order's trade on the tape", taped).await;
    let of_others = "return document.querySelector('[data-testid=tape] tr:not([data-mine])') !== null";
    browser.wait_until("a trade of somebody else on the tape", of_others).await;
}

async fn many_streams_are_live_at_once(browser: &Browser) {
    browser.click("open-many").await;
    let live = format!("return document.querySelectorAll('.tile[data-live=true]').length === {STREAMS}");
    browser.wait_until("all streams live at once", &live).await;
    assert_eq!(browser.number("many-open").await, STREAMS);
    assert_eq!(browser.number("many-live").await, STREAMS);
    // The stream of all prices is live beside them, and goes on.
    let events = browser.number("events").await;
    let more = format!(
        "return Number(document.querySelector('[data-testid=events]').textContent.replaceAll(',', '')) > {events}"
    );
    browser.wait_until("the first stream going on", &more).await;
    nothing_is_missed(browser).await;
}

async fn the_transport_changes_without_a_loss(browser: &Browser, transport: &str) {
    let cursor = browser.text("cursor").await;
    // The radio button itself is invisible; a user clicks its label.
    browser.run(&format!("document.querySelector('[data-testid=use-{transport}]').closest('label').click()")).await;
    let open = format!(
        "return document.querySelector('[data-testid=transport]').dataset.transport === '{transport}'\
         && document.querySelector('[data-testid=state]').dataset.state === 'open'"
    );
    browser.wait_until(transport, &open).await;
    let events = browser.number("events").await;
    let more = format!(
        "return Number(document.querySelector('[data-testid=events]').textContent.replaceAll(',', '')) > {events} + 20"
    );
    browser.wait_until(&format!("prices by {transport}"), &more).await;
    assert_ne!(browser.text("cursor").await, cursor, "the cursor goes on");
    nothing_is_missed(browser).await;
}

/// The backend numbers each stock's prices; the page counts holes and doubles as missed.
async fn nothing_is_missed(browser: &Browser) {
    assert_eq!(browser.number("missed").await, 0, "no price is missed or doubled");
    assert_eq!(browser.number("gaps").await, 0, "no gap is announced");
}
