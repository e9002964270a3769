//! Which modules to load for those that are wanted, and in which order.
//!
//! A package has no `modules.dep` (depmod runs at its installation), so dependencies are read
//! from the modules themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::{Cache, Error, Result, elf, store};

/// What a module may unpack to. The largest of Debian's takes 10 MiB, with debug information 100.
const MAX_MODULE: u64 = 512 << 20;

/// A module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile {
    /// As in `nvme_core`: with underscores.
    pub name: String,
    /// The file, as it is: `.ko`, `.ko.xz`, `.ko.zst` or `.ko.gz`.
    pub path: PathBuf,
    /// Of that file.
    pub sha256: String,
}

/// What is known of a tree of modules; kept in the cache.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    dir: PathBuf,
    stamp: String,
    /// Names and paths below `dir`.
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    /// By name, for those that were needed once.
    info: BTreeMap<String, Info>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Info {
    stamp: String,
    sha256: String,
    depends: Vec<String>,
    softdeps: Vec<String>,
}

/// One search for a closure.
struct Search<'a> {
    index: &'a mut Index,
    learnt: bool,
    done: BTreeSet<String>,
    path: Vec<String>,
    order: Vec<ModuleFile>,
}

impl Cache {
    /// The modules to load so that all of `wanted` are there, dependencies first, from a tree like
    /// `/lib/modules/RELEASE` or a build tree. What is built into the kernel needs no file. In
    /// names `-` and `_` are the same.
    pub fn closure(&self, modules_dir: &Path, wanted: &[&str]) -> Result<Vec<ModuleFile>> {
        let dir =
            modules_dir.canonicalize().map_err(|e| Error::io("read modules", modules_dir, e))?;
        let memo = self.memo_file("modules", &dir);
        let known: Option<Index> = store::read_json(&memo)?;
        if let Some(mut index) = known.filter(|k| k.dir == dir && k.stamp == tree_stamp(&dir)) {
            match index.search(wanted) {
                Ok((order, learnt)) => {
                    if learnt {
                        self.scratch.write_json(&memo, &index)?;
                    }
                    return Ok(order);
                }
                // The tree may have changed below its root since.
                Err(Error::NoModule { .. } | Error::Io { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        let mut index = Index::build(&dir)?;
        let (order, _) = index.search(wanted)?;
        self.scratch.write_json(&memo, &index)?;
        Ok(order)
    }
}

/// The name of a module from its file's, or `None` for other files.
pub(crate) fn module_name(file: &str) -> Option<String> {
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|e| file.strip_suffix(e))?;
    Some(normal(stem))
}

/// A module's content, unpacked: the guest has better things to do, above all under TCG.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>> {
    let data = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    match Codec::detect(&data) {
        Some(codec) => codec.unpack(&data, 0, MAX_MODULE).map_err(|e| Error::bad_module(path, e)),
        None => Ok(data),
    }
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Changes when modules are installed or built again.
fn tree_stamp(dir: &Path) -> String {
    let files = ["", "modules.order", "modules.dep", "modules.builtin"].map(|name| dir.join(name));
    let stamps = files.iter().filter_map(|path| fs::metadata(path).ok());
    stamps.map(|meta| store::stamp(&meta)).collect::<Vec<_>>().join(" ")
}

impl Index {
    fn build(dir: &Path) -> Result<Index> {
        let read_list = |name| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let name_of = |line: &str| module_name(line.rsplit('/').next().unwrap_or(line));
        let builtin = read_list("modules.builtin").lines().filter_map(name_of).collect();
        // Walking a build tree would take seconds, and its list is complete.
        let files = match dir.join("Makefile").exists() && dir.join("modules.order").exists() {
            true => listed(dir, &read_list("modules.order")),
            false => walked(dir)?,
        };
        let stamp = tree_stamp(dir);
        Ok(Index { dir: dir.to_owned(), stamp, files, builtin, info: BTreeMap::new() })
    }

    /// Finds the load order, and says whether something was read that is worth keeping.
    fn search(&mut self, wanted: &[&str]) -> Result<(Vec<ModuleFile>, bool)> {
        let mut search = Search {
            index: self,
            learnt: false,
            done: BTreeSet::new(),
            path: Vec::new(),
            order: Vec::new(),
        };
        for name in wanted {
            search.visit(&normal(name))?;
        }
        Ok((search.order, search.learnt))
    }

    fn info(&mut self, name: &str, path: &Path) -> Result<(Info, bool)> {
        let meta = fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
        let stamp = store::stamp(&meta);
        if let Some(info) = self.info.get(name).filter(|info| info.stamp == stamp) {
            return Ok((info.clone(), false));
        }
        let mut info = read_info(path)?;
        info.stamp = stamp;
        if store::is_settled(&meta) {
            self.info.insert(name.to_owned(), info.clone());
        }
        Ok((info, true))
    }
}

impl Search<'_> {
    fn visit(&mut self, name: &str) -> Result<()> {
        if self.done.contains(name) || self.index.builtin.contains(name) {
            return Ok(());
        }
        let dir = self.index.dir.clone();
        if let Some(at) = self.path.iter().position(|n| n == name) {
            let chain = [&self.path[at..], &[name.to_owned()]].concat().join(" -> ");
            return Err(Error::ModuleCycle { chain, dir });
        }
        let Some(path) = self.index.files.get(name).map(|file| dir.join(file)) else {
            let needed_by = self.path.last().cloned();
            return Err(Error::NoModule { name: name.to_owned(), needed_by, dir });
        };
        let (info, learnt) = self.index.info(name, &path)?;
        self.learnt |= learnt;
        self.path.push(name.to_owned());
        for needed in &info.depends {
            self.visit(needed)?;
        }
        for helpful in &info.softdeps {
            // As modprobe has it: without a soft dependency a module loads all the same. Its name
            // may also be an alias, which isn't followed.
            if self.index.files.contains_key(helpful) && !self.path.contains(helpful) {
                self.visit(helpful)?;
            }
        }
        self.path.pop();
        if self.done.insert(name.to_owned()) {
            self.order.push(ModuleFile { name: name.to_owned(), path, sha256: info.sha256 });
        }
        Ok(())
    }
}

/// The modules that a build tree's modules.order lists: as `.ko`, since Linux 6.4 as `.o`.
fn listed(dir: &Path, order: &str) -> BTreeMap<String, PathBuf> {
    let files = order.lines().filter_map(|line| {
        let file = Path::new(line.strip_prefix("kernel/").unwrap_or(line)).with_extension("ko");
        let name = module_name(file.file_name()?.to_str()?)?;
        dir.join(&file).exists().then_some((name, file))
    });
    files.collect()
}

fn walked(dir: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    // In the order of names, so that of two files with one name always the same is taken. depmod
    // would take the one in updates/ first, which comes last here.
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::io("read modules", dir, e.into()))?;
        let Some(name) = entry.file_name().to_str().and_then(module_name) else { continue };
        if let Ok(file) = entry.path().strip_prefix(dir) {
            files.insert(name, file.to_owned());
        }
    }
    Ok(files)
}

fn read_info(path: &Path) -> Result<Info> {
    let pairs = elf::modinfo(path, &read_module(path)?)?;
    let mut info = Info {
        stamp: String::new(),
        sha256: store::sha256_file(path)?,
        depends: vec![],
        softdeps: vec![],
    };
    for (key, value) in pairs {
        match key.as_str() {
            "depends" => {
                info.depends.extend(value.split(',').filter(|n| !n.is_empty()).map(normal));
            }
            "softdep" => info.softdeps.extend(soft_dependencies(&value)),
            _ => {}
        }
    }
    Ok(info)
}

/// The names after `pre:` in `pre: a b post: c`.
fn soft_dependencies(value: &str) -> Vec<String> {
    let mut before = false;
    let mut names = Vec::new();
    for word in value.split_whitespace() {
        match word {
            "pre:" => before = true,
            "post:" => before = false,
            name if before => names.push(normal(name)),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_module_names_from_file_names() {
        assert_eq!(module_name("nvme-core.ko.xz").as_deref(), Some("nvme_core"));
        assert_eq!(module_name("a.ko").as_deref(), Some("a"));
        assert_eq!(module_name("a.ko.bak"), None);
        assert_eq!(module_name("modules.order"), None);
        assert_eq!(soft_dependencies("post: z pre: a-b c post: d"), ["a_b", "c"]);
    }
}
