//! The watch of one Service: list, then what changes, again and again.

use crate::upstream::endpoint_slices::api_server::{ApiError, ApiServer};
use crate::upstream::endpoint_slices::slices::{Event, Next, Slices};
use crate::upstream::endpoint_slices::{Seen, ServiceName};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch::Sender;
use tokio::time::{Instant, sleep};

/// The API server ends a watch after this long; then it is seen whether anybody still asks.
const WATCH_SECS: u64 = 240;
/// It has this long for the end, too.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECS + 30);
/// A watch that nobody asks ends.
const UNUSED_AFTER: Duration = Duration::from_secs(300);
/// After failures the pause between two watches is twice as long each time, up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Tells of each change of the Service's addresses, until nobody asks for them.
pub(super) async fn follow(
    server: Rc<ApiServer>,
    name: ServiceName,
    tell: Sender<Seen>,
    last_look: Rc<Cell<Instant>>,
    pause_min: Duration,
) {
    let mut pause = pause_min;
    while last_look.get().elapsed() < UNUSED_AFTER {
        let begun = Cell::new(false);
        let ended = list_and_watch(&server, &name, &tell, &begun).await;
        if begun.get() {
            pause = pause_min;
        }
        match ended {
            Ok(()) => {}
            Err(error) => {
                let ServiceName { service, namespace, .. } = &name;
                // Each worker says so once for an outage.
                if pause == pause_min {
                    tracing::warn!(service, namespace, %error, "a service's endpoints can't be watched, the last ones hold");
                }
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
        sleep(pause).await;
    }
}

/// One list, and one watch from there on.
async fn list_and_watch(
    server: &ApiServer,
    name: &ServiceName,
    tell: &Sender<Seen>,
    begun: &Cell<bool>,
) -> Result<(), ApiError> {
    let ServiceName { service, namespace, .. } = name;
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
    );
    let list = server.get(&path).await?.whole().await?;
    let (mut slices, version) = Slices::of(serde_json::from_slice(&list)?);
    told(tell, &slices, name);
    let path =
        format!("{path}&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECS}&resourceVersion={version}");
    let mut answer = server.get(&path).await?;
    begun.set(true);
    while let Some(line) = answer.line(SILENCE_MAX).await? {
        let event: Event = serde_json::from_slice(&line)?;
        if slices.take(&event)? == Next::List {
            break;
        }
        told(tell, &slices, name);
    }
    Ok(())
}

fn told(tell: &Sender<Seen>, slices: &Slices, name: &ServiceName) {
    let sockets = slices.sockets(name);
    tell.send_if_modified(|seen| {
        let is_new = seen.as_deref() != Some(&*sockets);
        if is_new {
            *seen = Some(sockets.into());
        }
        is_new
    });
}
