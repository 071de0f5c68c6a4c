//! How much memory the process may use: the limit of its cgroup. Knows nothing of what it is used for.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// The memory limit of the process's cgroup in bytes, or of one above it; none is found outside of containers.
///
/// Asked once: a limit that changes while the process runs is no change of the configuration.
pub fn limit_bytes() -> Option<u64> {
    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        limit_under(Path::new("/sys/fs/cgroup"), &own)
    })
}

/// `own` is `/proc/self/cgroup` (cgroups(7)): `0::/path` for version 2, `4:memory:/path` for version 1.
fn limit_under(root: &Path, own: &str) -> Option<u64> {
    let limits = own.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        let path = Path::new(path.trim_start_matches('/'));
        // In a container the path may be the host's: then only the root is there. A limit of a parent holds as well.
        path.ancestors().filter_map(|folder| read(&root.join(folder).join(file))).collect()
    });
    limits.min()
}

/// `max`, or what version 1 writes for it (a number near 2^63), is no limit.
fn read(path: &Path) -> Option<u64> {
    let bytes = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (bytes < 1 << 62).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], own: &str, expected: Option<u64>) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        assert_eq!(limit_under(root.path(), own), expected);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_holds() {
        check(&[], "", None);
        check(&[("memory.max", "max\n")], "0::/\n", None);
        check(&[("memory.max", "536870912\n")], "0::/\n", Some(512 << 20));
        check(&[("a/memory.max", "1000"), ("a/b/memory.max", "2000")], "0::/a/b\n", Some(1000));
        check(&[("memory.max", "3000")], "0::/host/pod\n", Some(3000));
        check(&[("memory/memory.limit_in_bytes", "4000")], "4:cpu,memory:/docker/1\n0::/\n", Some(4000));
        check(&[("memory/memory.limit_in_bytes", "9223372036854771712")], "4:memory:/\n", None);
        check(&[("memory.max", "nonsense")], "0::/\nnonsense\n5:pids:/\n", None);
    }
}
