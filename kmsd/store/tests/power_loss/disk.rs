//! What a disk holds after a power loss: the folder as it was before, and the trace that the preloaded
//! layer wrote (`layer.c`).
//!
//! Every file and every folder has what is durable, and what was done to it since and never synced.
//! A file's sync makes its bytes and its size durable, not its name; a folder's sync makes the names
//! in it durable, not what they stand for. `sync_file_range` makes nothing durable. A rename within
//! a folder survives whole or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Small and seeded, so that a failed round can be told by its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }
}

/// How much of what was not synced survives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Survival {
    /// Nothing.
    Nothing,
    /// Any set of sectors, each as it was at any time since the last sync; any set of names.
    Some,
}

/// The disk of one victim.
pub(crate) struct Disk {
    folder: PathBuf,
    nodes: Vec<Node>,
    by_inode: HashMap<u64, usize>,
    syncs: HashMap<u64, (usize, usize)>,
    /// What the layer could not follow.
    pub(crate) unsupported: BTreeSet<String>,
    pub(crate) syncs_ended: usize,
    pub(crate) ranges_synced: usize,
}

enum Node {
    File { durable: Vec<u8>, size: usize, pending: Vec<FileChange> },
    Folder { durable: Names, current: Names, pending: Vec<NameChange> },
}

type Names = BTreeMap<String, usize>;

enum FileChange {
    Resize(usize),
    Write { offset: usize, bytes: Vec<u8> },
}

enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename { from: String, to: String, node: usize },
}

impl Disk {
    /// A disk on which everything in `folder` is durable.
    pub(crate) fn load(folder: &Path) -> Self {
        let mut disk = Self {
            folder: folder.to_owned(),
            nodes: Vec::new(),
            by_inode: HashMap::new(),
            syncs: HashMap::new(),
            unsupported: BTreeSet::new(),
            syncs_ended: 0,
            ranges_synced: 0,
        };
        disk.load_node(folder);
        disk
    }

    fn load_node(&mut self, path: &Path) -> usize {
        let metadata = fs::symlink_metadata(path).unwrap();
        let node = self.add(metadata.ino(), metadata.is_dir());
        if !metadata.is_dir() {
            let bytes = fs::read(path).unwrap();
            self.nodes[node] = Node::File { size: bytes.len(), durable: bytes, pending: vec![] };
            return node;
        }
        let mut names = Names::new();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            names.insert(name, self.load_node(&entry.path()));
        }
        self.nodes[node] = Node::Folder { durable: names.clone(), current: names, pending: vec![] };
        node
    }

    /// A new, empty node; the inode number may have been another's before.
    fn add(&mut self, inode: u64, is_folder: bool) -> usize {
        self.nodes.push(match is_folder {
            true => Node::Folder { durable: Names::new(), current: Names::new(), pending: vec![] },
            false => Node::File { durable: vec![], size: 0, pending: vec![] },
        });
        self.by_inode.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Goes through the whole trace. A record that the kill cut short did not happen.
    pub(crate) fn follow(&mut self, trace: &[u8]) {
        let mut rest = trace;
        while let Some((record, after)) = Record::read(rest) {
            self.apply(&record);
            rest = after;
        }
    }

    fn apply(&mut self, record: &Record<'_>) {
        let Record { kind, a, b, c, first, second } = *record;
        match kind {
            1 | 2 => {
                let node = self.add(a, kind == 2);
                let (folder, name) = self.place(first);
                self.change_names(folder, NameChange::Add(name, node));
            }
            3 => {
                let end = b as usize + first.len();
                // A file that is longer than this write made it had grown before.
                self.grow(a, if c as usize > end { c as usize } else { 0 });
                let write = FileChange::Write { offset: b as usize, bytes: first.to_vec() };
                self.change_file(a, write);
            }
            4 => self.change_file(a, FileChange::Resize(b as usize)),
            5 => {
                let ((from_folder, from), (to_folder, to)) =
                    (self.place(first), self.place(second));
                let node = self.names(from_folder)[&from];
                if from_folder == to_folder {
                    self.change_names(from_folder, NameChange::Rename { from, to, node });
                } else {
                    self.change_names(to_folder, NameChange::Add(to, node));
                    self.change_names(from_folder, NameChange::Remove(from));
                }
            }
            6 => {
                let (folder, name) = self.place(first);
                self.change_names(folder, NameChange::Remove(name));
            }
            7 => {
                let ((from_folder, from), (to_folder, to)) =
                    (self.place(first), self.place(second));
                let node = self.names(from_folder)[&from];
                self.change_names(to_folder, NameChange::Add(to, node));
            }
            8 => {
                self.grow(b, c as usize);
                let node = self.by_inode[&b];
                let done = match &self.nodes[node] {
                    Node::File { pending, .. } => pending.len(),
                    Node::Folder { pending, .. } => pending.len(),
                };
                self.syncs.insert(a, (node, done));
            }
            9 => {
                let (node, done) = self.syncs.remove(&a).unwrap();
                self.make_durable(node, done);
                self.syncs_ended += 1;
            }
            10 => self.ranges_synced += 1,
            _ => {
                self.unsupported.insert(String::from_utf8_lossy(first).into_owned());
            }
        }
    }

    /// The folder node and the name of a path below the folder.
    fn place(&self, path: &[u8]) -> (usize, String) {
        let path = Path::new(str::from_utf8(path).unwrap());
        let below = path.strip_prefix(&self.folder).unwrap();
        let name = below.file_name().unwrap().to_str().unwrap().to_owned();
        let parents = below.parent().unwrap().components();
        let folder =
            parents.fold(0, |node, part| self.names(node)[part.as_os_str().to_str().unwrap()]);
        (folder, name)
    }

    fn names(&self, node: usize) -> &Names {
        match &self.nodes[node] {
            Node::Folder { current, .. } => current,
            Node::File { .. } => panic!("a file where a folder is expected"),
        }
    }

    fn change_names(&mut self, node: usize, change: NameChange) {
        let Node::Folder { current, pending, .. } = &mut self.nodes[node] else {
            panic!("a file where a folder is expected")
        };
        change.apply(current);
        pending.push(change);
    }

    fn change_file(&mut self, inode: u64, change: FileChange) {
        let node = self.by_inode[&inode];
        let Node::File { size, pending, .. } = &mut self.nodes[node] else {
            panic!("a folder where a file is expected")
        };
        *size = match &change {
            FileChange::Resize(to) => *to,
            FileChange::Write { offset, bytes } => (offset + bytes.len()).max(*size),
        };
        pending.push(change);
    }

    /// Takes note of a file that has grown by a system call that the layer did not see.
    fn grow(&mut self, inode: u64, seen: usize) {
        let node = self.by_inode[&inode];
        if let Node::File { size, pending, .. } = &mut self.nodes[node]
            && seen > *size
        {
            *size = seen;
            pending.push(FileChange::Resize(seen));
        }
    }

    /// The first `done` pending changes have reached the disk.
    fn make_durable(&mut self, node: usize, done: usize) {
        match &mut self.nodes[node] {
            Node::File { durable, pending, .. } => {
                pending.drain(..done).for_each(|change| change.apply(durable));
            }
            Node::Folder { durable, pending, .. } => {
                pending.drain(..done).for_each(|change| change.apply(durable));
            }
        }
        // Syncs that run at the same time began with changes that are gone from the list now.
        for (other, begun) in self.syncs.values_mut() {
            if *other == node {
                *begun = begun.saturating_sub(done);
            }
        }
    }

    /// Writes down what is left after the power is cut now.
    pub(crate) fn cut(&self, to: &Path, survival: Survival, random: &mut Random) {
        self.cut_node(0, to, survival, random);
    }

    fn cut_node(&self, node: usize, to: &Path, survival: Survival, random: &mut Random) {
        match &self.nodes[node] {
            Node::File { durable, pending, .. } => {
                let mut bytes = durable.clone();
                if survival == Survival::Some {
                    survive(&mut bytes, pending, random);
                }
                fs::write(to, bytes).unwrap();
            }
            Node::Folder { durable, pending, .. } => {
                fs::create_dir_all(to).unwrap();
                let mut names = durable.clone();
                for change in pending {
                    if survival == Survival::Some && random.below(2) == 0 {
                        change.apply(&mut names);
                    }
                }
                for (name, node) in names {
                    self.cut_node(node, &to.join(name), survival, random);
                }
            }
        }
    }
}

/// Lets some of the pending changes survive: the size as it was at some time, each sector as it was
/// at some time.
fn survive(bytes: &mut Vec<u8>, pending: &[FileChange], random: &mut Random) {
    if pending.is_empty() {
        return;
    }
    let mut sectors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, change) in pending.iter().enumerate() {
        if let FileChange::Write { offset, bytes } = change
            && !bytes.is_empty()
        {
            for sector in offset / SECTOR..=(offset + bytes.len() - 1) / SECTOR {
                sectors.entry(sector).or_default().push(index);
            }
        }
    }
    let end = random.below(pending.len() + 1);
    let mut size = bytes.len();
    for change in &pending[..end] {
        match change {
            FileChange::Resize(to) => size = *to,
            FileChange::Write { offset, bytes } => size = size.max(offset + bytes.len()),
        }
    }
    let last_sector = sectors.last_key_value().map_or(0, |(sector, _)| (sector + 1) * SECTOR);
    bytes.resize(size.max(bytes.len()).max(last_sector), 0);
    // Some files come through well, some badly, some not at all.
    let (kept, of) = [(0, 1), (1, 1), (1, 2), (1, 10), (9, 10)][random.below(5)];
    for (sector, changes) in sectors {
        if random.below(of) >= kept {
            continue;
        }
        let until = random.below(changes.len() + 1);
        for index in &changes[..until] {
            if let FileChange::Write { offset, bytes: written } = &pending[*index] {
                let begin = (*offset).max(sector * SECTOR);
                let end = (offset + written.len()).min((sector + 1) * SECTOR);
                bytes[begin..end].copy_from_slice(&written[begin - offset..end - offset]);
            }
        }
    }
    bytes.truncate(size);
}

impl FileChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Resize(to) => bytes.resize(*to, 0),
            Self::Write { offset, bytes: written } => {
                let end = offset + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(written);
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// One record of the trace; see `struct head` in `layer.c`.
struct Record<'a> {
    kind: u32,
    a: u64,
    b: u64,
    c: u64,
    first: &'a [u8],
    second: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let u32_at = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
        assert_eq!(u32_at(0), MAGIC, "the trace is out of step");
        let (first, rest) = rest.split_at_checked(u32_at(32) as usize)?;
        let (second, rest) = rest.split_at_checked(u32_at(36) as usize)?;
        let (kind, a, b, c) = (u32_at(4), u64_at(8), u64_at(16), u64_at(24));
        Some((Self { kind, a, b, c, first, second }, rest))
    }
}

const HEAD_BYTES: usize = 40;
const MAGIC: u32 = 0x5257_4f50;
const SECTOR: usize = 512;
