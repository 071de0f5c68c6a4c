//! The origin's hand to `POST /v1/events`: batches of events over one keep-alive connection.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time;

const BATCH_EVENTS_MAX: usize = 100;
const ANSWER_BYTES_MAX: usize = 256 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// Publishes what comes out of `events` until its senders are gone.
///
/// A batch that fails is tried again (its events carry ids, so that none is delivered twice), then given up with a
/// warning: prices go on.
pub async fn run(address: SocketAddr, mut events: mpsc::Receiver<Value>) {
    let mut publisher = Publisher { address, connection: None };
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, BATCH_EVENTS_MAX).await > 0 {
        let body = Bytes::from(Value::Array(std::mem::take(&mut batch)).to_string());
        let mut pauses = PAUSES.iter();
        while let Err(error) = publisher.publish(body.clone()).await {
            publisher.connection = None;
            let Some(pause) = pauses.next() else {
                tracing::warn!(error = format!("{error:#}"), "demo events not published");
                break;
            };
            time::sleep(*pause).await;
        }
    }
}

struct Publisher {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Publisher {
    async fn publish(&mut self, body: Bytes) -> anyhow::Result<()> {
        time::timeout(ANSWER_TIMEOUT, self.post(body)).await.context("no answer in time")?
    }

    async fn post(&mut self, body: Bytes) -> anyhow::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) if !connection.is_closed() => connection,
            slot => slot.insert(connect(self.address).await?),
        };
        let request = http::Request::post("/v1/events")
            .header(http::header::HOST, self.address.to_string())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let socket = TcpStream::connect(address).await.with_context(|| format!("{address} does not answer"))?;
    socket.set_nodelay(true)?;
    let (connection, driver) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "demo publish connection ended");
        }
    });
    Ok(connection)
}
