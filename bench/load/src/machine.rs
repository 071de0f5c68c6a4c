//! What the kernel says of time, and of the processes that are measured.

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;

/// CLOCK_MONOTONIC in nanoseconds: the same clock in all processes.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(nanos).unwrap_or(0)
}

fn nanos(time: nix::sys::time::TimeSpec) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// CPU time and memory of some processes and all their descendants, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub at_ns: u64,
    /// User and system time of all threads, also those that have ended.
    pub cpu_ns: u64,
    pub rss_bytes: u64,
    /// CPU time of each thread that there is, by its id; to 10 ms.
    threads_ns: HashMap<i32, u64>,
}

impl Usage {
    /// Looks at `roots` and their descendants.
    pub fn of(roots: &[i32]) -> Self {
        let mut usage = Self { at_ns: now_ns(), ..Self::default() };
        for pid in family(roots) {
            usage.cpu_ns += clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime).map(nanos).unwrap_or(0);
            usage.rss_bytes += rss_bytes(pid);
            usage.threads_ns.extend(threads_ns(pid));
        }
        usage
    }

    /// CPU microseconds since an earlier look.
    pub fn cpu_us_since(&self, before: &Self) -> f64 {
        self.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3
    }

    /// CPU microseconds since an earlier look of the thread that had the most: with a core for each thread, no
    /// stretch of work is done sooner than this.
    pub fn busiest_us_since(&self, before: &Self) -> f64 {
        let spent = |(id, now): (&i32, &u64)| now.saturating_sub(before.threads_ns.get(id).copied().unwrap_or(0));
        self.threads_ns.iter().map(spent).max().unwrap_or(0) as f64 / 1e3
    }

    /// Bytes of memory more than at an earlier look.
    pub fn grown_bytes(&self, before: &Self) -> f64 {
        self.rss_bytes as f64 - before.rss_bytes as f64
    }
}

fn rss_bytes(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// User and system time are fields 14 and 15 of proc_pid_stat, in ticks of 10 ms on every Linux that there is.
fn threads_ns(pid: i32) -> Vec<(i32, u64)> {
    const TICK_NS: u64 = 10_000_000;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything; field 3 follows it.
            let ticks =
                stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).map(|text| text.parse::<u64>().ok());
            Some((entry.file_name().to_str()?.parse().ok()?, ticks.sum::<Option<u64>>()? * TICK_NS))
        })
        .collect()
}

fn family(roots: &[i32]) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in parentheses, may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_children_are_seen() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().expect("sleep is there");
        let me = std::process::id() as i32;
        let found = family(&[me]);
        child.kill().expect("it runs");
        child.wait().expect("it ended");
        assert!(found.contains(&me) && found.contains(&(child.id() as i32)));
        let before = Usage::of(&[me]);
        let begun = now_ns();
        while now_ns() < begun + 200_000_000 {}
        let after = Usage::of(&[me]);
        assert!(after.cpu_us_since(&before) > 1000.0 && before.rss_bytes > 100_000);
        let busiest = after.busiest_us_since(&before);
        assert!(busiest > 1000.0 && busiest < 20_000.0 + after.cpu_us_since(&before), "{busiest}");
    }
}
