//! New connections on their way to the worker that has the fewest.
//!
//! The kernel spreads connections over the workers' sockets by a hash (SO_REUSEPORT), and what comes to a worker stays there, for
//! days perhaps: of a hundred connections one of two workers may get sixty, and its core sets the pace of all. So a worker that has
//! clearly more than another gives what it accepts to that one ([`crate::server::limits::ConnectionCount::place`]).

use crate::server::limits::Place;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The most connections that wait for a worker; who has more keeps what it accepts.
const WAITING_MAX: usize = 256;

/// A connection that another worker accepted.
#[derive(Debug)]
pub struct Handed {
    /// Its socket, which no runtime knows.
    pub tcp: TcpStream,
    /// Where it comes from.
    pub from: SocketAddr,
    /// Its place among its new worker's.
    pub place: Place,
}

/// One address's lanes, one to each worker.
#[derive(Debug)]
pub struct Lanes(Box<[Mutex<Lane>]>);

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Handed>,
    waker: Option<Waker>,
    /// Whether its worker takes from it.
    is_open: bool,
}

impl Lanes {
    /// Lanes that nobody takes from yet.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| Mutex::default()).collect()))
    }

    /// Gives a connection to the worker of its place.
    ///
    /// # Errors
    /// Gives it back if the worker does not listen there, or does not keep up.
    pub fn give(&self, handed: Handed) -> Result<(), Handed> {
        let waker = {
            let Some(lane) = self.0.get(handed.place.worker()) else { return Err(handed) };
            let mut lane = lane.lock();
            if !lane.is_open || lane.waiting.len() >= WAITING_MAX {
                return Err(handed);
            }
            lane.waiting.push_back(handed);
            lane.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Begins to take what is given to a worker.
    pub fn open(&self, worker: usize) {
        self.of(worker, |lane| lane.is_open = true);
    }

    /// The next connection that is given to a worker; pending for ever once the lane is closed.
    pub async fn next(&self, worker: usize) -> Handed {
        poll_fn(|cx| self.poll_next(worker, cx)).await
    }

    fn poll_next(&self, worker: usize, cx: &Context<'_>) -> Poll<Handed> {
        self.of(worker, |lane| match lane.waiting.pop_front() {
            Some(handed) => Poll::Ready(handed),
            None => {
                lane.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .unwrap_or(Poll::Pending)
    }

    /// Takes no more, and gives out what was waiting: these clients came in time.
    pub fn close(&self, worker: usize) -> VecDeque<Handed> {
        let closed = self.of(worker, |lane| {
            lane.is_open = false;
            std::mem::take(&mut lane.waiting)
        });
        closed.unwrap_or_default()
    }

    fn of<T>(&self, worker: usize, act: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        self.0.get(worker).map(|lane| act(&mut lane.lock()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::ConnectionCount;

    fn handed(place: Place) -> Handed {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let tcp = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        Handed { from: tcp.local_addr().expect("an address"), tcp, place }
    }

    #[tokio::test]
    async fn a_lane_gives_what_it_was_given_in_order_while_it_is_open() {
        let count = ConnectionCount::new(2);
        let lanes = Lanes::new(2);
        let given = |worker| lanes.give(handed(count.place_at(worker)));
        let back = given(1).expect_err("nobody takes");
        assert_eq!(back.place.worker(), 1);
        lanes.open(1);
        let (first, second) = (handed(count.place_at(1)), handed(count.place_at(1)));
        let order = [first.from, second.from];
        let (taken, ()) = tokio::join!(async { [lanes.next(1).await, lanes.next(1).await] }, async {
            lanes.give(first).expect("open");
            tokio::task::yield_now().await;
            lanes.give(second).expect("open");
        });
        assert_eq!(taken.map(|handed| handed.from), order);
        given(0).expect_err("nobody takes there");
        given(1).expect("open");
        assert_eq!(lanes.close(1).len(), 1);
        given(1).expect_err("closed");
        drop(back);
        assert_eq!([count.open_at(0), count.open_at(1)], [0, 0]);
    }

    #[test]
    fn a_worker_that_does_not_keep_up_gets_no_more() {
        let count = ConnectionCount::new(1);
        let lanes = Lanes::new(1);
        lanes.open(0);
        for _ in 0..WAITING_MAX {
            lanes.give(handed(count.place_at(0))).expect("room");
        }
        lanes.give(handed(count.place_at(0))).expect_err("no room");
        assert_eq!(count.open_at(0), WAITING_MAX);
    }
}
