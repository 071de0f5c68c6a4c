//! Hears of changes in folders (inotify on Linux).
//!
//! Folders, not files: a file that is replaced takes its watch with it. What is heard says only that it is time to look.

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Watches a set of folders.
pub(super) struct Watch {
    heard: mpsc::Sender<()>,
    watcher: Option<RecommendedWatcher>,
    /// The folders, and which each was: one that is made anew is another.
    folders: BTreeMap<PathBuf, Option<Inode>>,
}

/// Whether the watched folders are still those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// They are; nothing can have been missed.
    Same,
    /// They were others: what changed before this moment was not heard.
    Anew,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Watch {
    /// A watch over nothing, and where it is heard. One word stands for many.
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (heard, changes) = mpsc::channel(1);
        (Self { heard, watcher: None, folders: BTreeMap::new() }, changes)
    }

    /// Watches these folders from now on.
    pub(super) fn follow(&mut self, folders: &BTreeSet<PathBuf>) -> Followed {
        let wanted: BTreeMap<_, _> = folders.iter().map(|folder| (folder.clone(), inode(folder))).collect();
        if wanted == self.folders {
            return Followed::Same;
        }
        self.folders = wanted;
        self.watcher = match self.start() {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "configuration folders can't be watched; they are looked at twice a minute");
                None
            }
        };
        Followed::Anew
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let heard = self.heard.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event.kind)) {
                // Full means that somebody is on the way to look.
                let _ = heard.try_send(());
            }
        })?;
        for (folder, _) in self.folders.iter().filter(|(_, inode)| inode.is_some()) {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

/// Reading is no change: else each look would bring about the next. Nor is a write: a file that is written is closed,
/// but for one that is written for ever, such as a log that stands in the same folder.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(ModifyKind::Data(_)) => false,
        _ => true,
    }
}

fn inode(folder: &Path) -> Option<Inode> {
    let found = std::fs::metadata(folder).ok()?;
    Some(Inode { device: found.dev(), number: found.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{DataChange, RenameMode};

    #[test]
    fn reading_is_no_change_and_a_write_is_one_at_its_end() {
        assert!(!is_change(&EventKind::Modify(ModifyKind::Data(DataChange::Any))));
        assert!(is_change(&EventKind::Modify(ModifyKind::Name(RenameMode::To))));
        assert!(!is_change(&EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(!is_change(&EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(is_change(&EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_change(&EventKind::Any));
    }

    #[test]
    fn a_folder_that_is_made_anew_is_followed_anew() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("a");
        let folders = BTreeSet::from([folder.clone()]);
        let (mut watch, _changes) = Watch::new();
        assert_eq!(watch.follow(&folders), Followed::Anew);
        assert_eq!(watch.follow(&folders), Followed::Same);
        std::fs::create_dir(&folder).expect("made");
        assert_eq!(watch.follow(&folders), Followed::Anew);
        std::fs::rename(&folder, parent.path().join("b")).expect("moved");
        std::fs::create_dir(&folder).expect("made");
        assert_eq!(watch.follow(&folders), Followed::Anew);
        assert_eq!(watch.follow(&folders), Followed::Same);
    }
}
