//! What is swapped, counted and tried again, with files of a test's own and a target that only counts.

use super::*;
use std::cell::Cell;
use std::rc::Rc;
use tempfile::TempDir;

/// Counts swaps, and refuses them while it has a reason.
#[derive(Debug, Default)]
struct Counting {
    swaps: Rc<Cell<usize>>,
    wrong: Rc<Cell<Option<&'static str>>>,
}

impl Target for Counting {
    fn swap(&mut self, _config: Config) -> Result<(), String> {
        self.swaps.set(self.swaps.get() + 1);
        self.wrong.get().map_or(Ok(()), |reason| Err(reason.to_owned()))
    }
}

struct Bench {
    folder: TempDir,
    reloader: Reloader<Counting>,
    swaps: Rc<Cell<usize>>,
    wrong: Rc<Cell<Option<&'static str>>>,
    metrics: Arc<Metrics>,
}

fn source(path: &str) -> String {
    format!(
        "listeners: [{{ name: http, address: '127.0.0.1:0' }}]\n\
         routes: [{{ name: n, match: {{ path: {path} }}, push: {{ channels: [n] }} }}]\n"
    )
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, source("/a")).expect("written");
        let Loaded { result, sources } = config::load_with_sources(&path);
        let config = result.expect("a sound configuration");
        let running = Running { comparable: Comparable::of(&config), hash: config.hash, sources };
        let (target, metrics) = (Counting::default(), Metrics::new());
        let (swaps, wrong) = (Rc::clone(&target.swaps), Rc::clone(&target.wrong));
        let reloader = Reloader::new(path, running, target, Arc::clone(&metrics));
        Self { folder, reloader, swaps, wrong, metrics }
    }

    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("c.yaml"), text).expect("written");
    }

    /// Checks the swaps that were tried, and the counts of applied, unchanged and refused reloads.
    #[track_caller]
    fn check(&self, swaps: usize, counts: [u64; 3]) {
        assert_eq!(self.swaps.get(), swaps, "swaps");
        let text = self.metrics.render();
        for (result, count) in ReloadResult::ALL.iter().zip(counts) {
            let line = format!("pushbridge_config_reloads_total{{result=\"{}\"}} {count}", result.as_str());
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }
}

#[test]
fn nothing_happens_when_nothing_changed() {
    let mut bench = Bench::new();
    bench.reloader.look(Trigger::Files);
    bench.write(&source("/a"));
    bench.reloader.look(Trigger::Poll);
    bench.check(0, [0, 0, 0]);
    assert!(matches!(bench.reloader.reload(Trigger::Request), Outcome::Unchanged));
    bench.check(0, [0, 1, 0]);
}

#[test]
fn new_contents_are_swapped_once() {
    let mut bench = Bench::new();
    let before = bench.reloader.hash().to_owned();
    bench.write(&source("/b"));
    bench.reloader.look(Trigger::Files);
    bench.reloader.look(Trigger::Poll);
    bench.check(1, [1, 0, 0]);
    assert_ne!(bench.reloader.hash(), before);
}

#[test]
fn broken_contents_count_once_until_somebody_asks() {
    let mut bench = Bench::new();
    bench.write("routes: [");
    for _ in 0..3 {
        bench.reloader.look(Trigger::Poll);
    }
    bench.check(0, [0, 0, 1]);
    assert!(matches!(bench.reloader.reload(Trigger::Request), Outcome::Refused(_)));
    bench.check(0, [0, 0, 2]);
    bench.write("routes: [[");
    bench.reloader.look(Trigger::Files);
    bench.check(0, [0, 0, 3]);
    bench.write(&source("/a"));
    bench.reloader.look(Trigger::Files);
    bench.check(0, [0, 1, 3]);
    bench.reloader.look(Trigger::Files);
    bench.check(0, [0, 1, 3]);
}

#[test]
fn what_the_instance_refuses_is_tried_again() {
    let mut bench = Bench::new();
    bench.write(&source("/b"));
    bench.wrong.set(Some("the port is taken"));
    bench.reloader.look(Trigger::Files);
    bench.reloader.look(Trigger::Poll);
    bench.check(2, [0, 0, 1]);
    bench.wrong.set(None);
    bench.reloader.look(Trigger::Poll);
    bench.check(3, [1, 0, 1]);
}
