//! The thread that a shared bus works on, or what goes over one: it ends when it is told to, or when its owner is dropped.

use parking_lot::Mutex;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A running thread. Dropping it tells it to end, and waits for nothing.
#[derive(Debug)]
pub struct BusThread {
    name: &'static str,
    stop: watch::Sender<bool>,
    /// Nothing is ever sent: it is closed when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

/// Tells a thread's work that it is to end.
#[derive(Debug, Clone)]
pub struct Stopped(watch::Receiver<bool>);

impl BusThread {
    /// Runs `work` on a thread of its own, until it returns. Whatever it has spawned is gone then.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<F: Future<Output = ()>>(
        name: &'static str,
        runtime: Runtime,
        work: impl FnOnce(Stopped) -> F + Send + 'static,
    ) -> io::Result<Self> {
        choose_provider();
        let (stop, stopped) = watch::channel(false);
        let (open, ended) = sync_channel(1);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(work(Stopped(stopped)));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
            drop::<std::sync::mpsc::SyncSender<()>>(open);
        })?;
        Ok(Self { name, stop, ended: Mutex::new(ended) })
    }

    /// Tells it to end, and waits for that; blocking.
    pub fn stop(&self, patience: Duration) {
        self.stop.send_replace(true);
        if self.ended.lock().recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(thread = self.name, "it did not say good-bye in time");
        }
    }
}

/// The clients of Redis and NATS ask the process for a provider where they make up their own TLS settings. Since the
/// client of Kafka has a second one compiled in, they would find none.
#[expect(clippy::disallowed_methods, reason = "libraries ask the process; all else passes the provider on")]
fn choose_provider() {
    // It fails where it was chosen before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl Stopped {
    /// Waits until the work is to end. May be dropped and called again at any time.
    pub async fn wait(&mut self) {
        // An error says that the bus was dropped.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn a_stop_waits_for_the_last_words() {
        let said = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&said);
        let thread = BusThread::start("bus", runtime(), |mut stopped| async move {
            stopped.wait().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            says.store(true, Ordering::Release);
        });
        let thread = thread.expect("a thread");
        thread.stop(Duration::from_secs(10));
        assert!(said.load(Ordering::Acquire));
        thread.stop(Duration::from_secs(10));
    }

    #[test]
    fn a_dropped_bus_ends_its_thread() {
        let (open, closed) = sync_channel::<()>(1);
        let thread = BusThread::start("bus", runtime(), |mut stopped| async move {
            stopped.wait().await;
            drop(open);
        });
        drop(thread.expect("a thread"));
        assert_eq!(closed.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected));
    }
}
