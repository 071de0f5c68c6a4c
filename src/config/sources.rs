//! The files that a configuration is made of: what was read, and whether it is still so.
//!
//! A volume of Kubernetes is swapped as a whole: its files are links into `..data`, itself a link to a folder of one
//! generation. A load that saw two generations of one volume is torn, and is begun anew by whoever loads.

use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The link that Kubernetes swaps.
const DATA_LINK: &str = "..data";
/// How far up a file's folders its volume is looked for.
const VOLUME_DEPTH_MAX: usize = 8;

/// What was read, file by file; never their contents.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: BTreeMap<PathBuf, Seen>,
    /// The folders with a `..data`, and where it led at their first read.
    volumes: BTreeMap<PathBuf, Option<PathBuf>>,
    changed_while_read: Changed,
}

/// Stands for the contents of all files together, also of those that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// Why a file can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It has more bytes than it may have.
    TooLarge,
    /// The system's reason, for people.
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    bytes_max: u64,
    contents: Fingerprint,
}

/// Whether one file read differently when it was read twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Changed {
    #[default]
    No,
    Yes,
}

impl Sources {
    /// Reads a whole file, and remembers what it was like.
    ///
    /// # Errors
    /// When it can't be read, or has more than `bytes_max` bytes.
    pub fn read(&mut self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Unreadable> {
        if let Some(volume) = volume(path) {
            self.volumes.entry(volume).or_insert_with_key(|volume| generation(volume));
        }
        let read = read_file(path, bytes_max);
        let seen = Seen { bytes_max, contents: Fingerprint::of(&read) };
        if self.files.insert(path.to_owned(), seen).is_some_and(|before| before != seen) {
            self.changed_while_read = Changed::Yes;
        }
        read
    }

    /// Whether what was read may be of two generations.
    pub fn is_torn(&self) -> bool {
        self.changed_while_read == Changed::Yes || self.volumes.iter().any(|(volume, was)| generation(volume) != *was)
    }

    /// These files, and those of `others`, as they were read there.
    #[must_use]
    pub fn with_those_of(mut self, others: &Self) -> Self {
        others.files.iter().for_each(|(path, seen)| {
            self.files.entry(path.clone()).or_insert(*seen);
        });
        others.volumes.iter().for_each(|(volume, generation)| {
            self.volumes.entry(volume.clone()).or_insert_with(|| generation.clone());
        });
        self
    }

    /// What was read.
    pub fn fingerprint(&self) -> Fingerprint {
        combined(self.files.iter().map(|(path, seen)| (path, seen.contents)))
    }

    /// Reads the same files again, and says what they are like now.
    pub fn look_again(&self) -> Fingerprint {
        combined(self.files.iter().map(|(path, seen)| (path, Fingerprint::of(&read_file(path, seen.bytes_max)))))
    }

    /// What one of the files was like, in hexadecimal: the SHA-256 of its bytes. Empty if it was not read.
    pub fn sha256_of(&self, path: &Path) -> String {
        let hex = |byte: &u8| format!("{byte:02x}");
        self.files.get(path).map_or_else(String::new, |seen| seen.contents.0.iter().map(hex).collect())
    }

    /// The folders in which a change of the files shows: those that they are named in, the volumes above them, and,
    /// outside of volumes, those that links lead to.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders: BTreeSet<PathBuf> = self.volumes.keys().cloned().collect();
        for path in self.files.keys() {
            folders.insert(folder(path));
            if volume(path).is_none()
                && let Ok(target) = path.canonicalize()
            {
                folders.insert(folder(&target));
            }
        }
        folders
    }
}

impl Fingerprint {
    /// Of a file that was read: the SHA-256 of its bytes. Of another: of the reason.
    fn of(read: &Result<Vec<u8>, Unreadable>) -> Self {
        let mut context = Context::new(&SHA256);
        match read {
            Ok(bytes) => context.update(bytes),
            Err(Unreadable::TooLarge) => context.update(b"\0too large"),
            Err(Unreadable::Failed(reason)) => {
                context.update(b"\0failed ");
                context.update(reason.as_bytes());
            }
        }
        Self::finished(context)
    }

    fn finished(context: Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

fn combined<'a>(files: impl Iterator<Item = (&'a PathBuf, Fingerprint)>) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    for (path, contents) in files {
        let path = path.as_os_str().as_encoded_bytes();
        context.update(&(path.len() as u64).to_le_bytes());
        context.update(path);
        context.update(&contents.0);
    }
    Fingerprint::finished(context)
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > bytes_max => Err(Unreadable::TooLarge),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Unreadable::Failed(reason(&error))),
    }
}

/// The system's reason in lower case, without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}

/// The folder that a file stands in; a bare name stands in the current one.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The nearest folder above a file that has a `..data`.
fn volume(path: &Path) -> Option<PathBuf> {
    let folder = folder(path);
    let volume = folder.ancestors().take(VOLUME_DEPTH_MAX).find(|above| above.join(DATA_LINK).is_symlink());
    volume.map(Path::to_owned)
}

fn generation(volume: &Path) -> Option<PathBuf> {
    std::fs::read_link(volume.join(DATA_LINK)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Makes a generation and swaps `..data` to it, as the kubelet does.
    fn swap(volume: &Path, generation: &str, text: &str) {
        std::fs::create_dir(volume.join(generation)).expect("a folder");
        std::fs::write(volume.join(generation).join("a"), text).expect("written");
        symlink(generation, volume.join("..data_tmp")).expect("a link");
        std::fs::rename(volume.join("..data_tmp"), volume.join(DATA_LINK)).expect("swapped");
        let _ = symlink("..data/a", volume.join("a"));
    }

    #[test]
    fn a_volume_that_is_swapped_while_it_is_read_is_torn() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        swap(folder.path(), "..1", "one");
        let mut sources = Sources::default();
        assert_eq!(sources.read(&file, 10), Ok(b"one".to_vec()));
        assert!(!sources.is_torn());
        swap(folder.path(), "..2", "one");
        assert!(sources.is_torn());
        assert_eq!(sources.look_again(), sources.fingerprint(), "the contents are the same");
        assert_eq!(sources.folders(), BTreeSet::from([folder.path().to_owned()]));
    }

    #[test]
    fn contents_and_reasons_make_the_fingerprint() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        let mut sources = Sources::default();
        assert_eq!(sources.read(&file, 3), Err(Unreadable::Failed("no such file".into())));
        let missing = sources.fingerprint();
        std::fs::write(&file, "abc").expect("written");
        assert_ne!(sources.look_again(), missing);
        assert_eq!(sources.read(&file, 3), Ok(b"abc".to_vec()));
        assert!(sources.is_torn(), "it was two things while it was read");
        assert_eq!(sources.read(&file, 2), Err(Unreadable::TooLarge));
        assert_eq!(sources.sha256_of(Path::new("b")), "");
    }

    #[test]
    fn a_link_is_watched_at_both_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let (live, archive) = (folder.path().join("live"), folder.path().join("archive"));
        std::fs::create_dir(&live).and_then(|()| std::fs::create_dir(&archive)).expect("folders");
        std::fs::write(archive.join("1"), "x").expect("written");
        symlink("../archive/1", live.join("a")).expect("a link");
        let mut sources = Sources::default();
        sources.read(&live.join("a"), 9).expect("read");
        let archive = archive.canonicalize().expect("a path");
        assert_eq!(sources.folders(), BTreeSet::from([live, archive]));
    }
}
