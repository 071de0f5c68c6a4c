//! The load generator of pushbridge's side-by-side measurements; `bench/run.py` calls it.
//!
//! ```text
//! load fan-out   subscribe, publish, and account for every delivery
//! load requests  one request after another on keep-alive connections
//! load echo      the floor: a fan-out server of one write(2) a subscriber
//! load backend   the backend behind the proxies
//! ```

mod account;
mod fan_out;
mod histogram;
mod http1;
mod http2;
mod machine;
mod mark;
mod options;
mod publisher;
mod requests;
mod server;
mod shard;
mod url;
mod websocket;
mod wire;

use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("load: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let address = |options: &Options| {
        let text = options.needed("address")?;
        text.parse().map_err(|_| format!("--address {text}: not an address and port"))
    };
    match command.as_str() {
        "fan-out" => fan_out::run(&Options::parse(args, fan_out::OPTIONS)?),
        "requests" => requests::run(&Options::parse(args, requests::OPTIONS)?),
        "echo" => server::echo(address(&Options::parse(args, &["address"])?)?),
        "backend" => server::backend(address(&Options::parse(args, &["address"])?)?),
        other => Err(format!("{other:?}: not fan-out, requests, echo or backend")),
    }
}
