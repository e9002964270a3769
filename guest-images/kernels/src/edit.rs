//! Edits of a source, and sets of known bugs made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One change: in this file, this text, which stands there exactly once, becomes that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Path below the source's root.
    pub file: String,
    /// What to find.
    pub find: String,
    /// What to put there instead.
    pub replace: String,
}

/// Changes that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edits {
    /// Their name, for messages and for the kernel's.
    pub name: String,
    /// The changes, in the order in which they are made.
    pub edits: Vec<Edit>,
}

/// A bug that is known, because somebody put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// A short name, as in `fix-reverted`.
    pub id: String,
    /// What the kernel does wrong.
    pub what: String,
    /// Why that matters to somebody.
    pub why: String,
    /// How it is put there.
    pub edits: Edits,
    /// The checks that must fail; others may.
    pub caught_by: Vec<String>,
}

/// Known bugs of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bugs {
    /// The file that they were read from, or the name of a built-in list.
    pub path: String,
    /// The source that they are for, where the file says so.
    pub kernel: Option<String>,
    /// The bugs, in the file's order.
    pub bugs: Vec<Bug>,
}

/// Built-in lists, by the name of the source that they are for.
const BUILTIN: [(&str, &str); 2] = [
    ("linux-5.10", include_str!("../data/bugs/linux-5.10.yaml")),
    ("linux-6.12", include_str!("../data/bugs/linux-6.12.yaml")),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFile {
    #[serde(default)]
    kernel: Option<String>,
    #[serde(default)]
    bugs: Vec<RawBug>,
    #[serde(default)]
    edits: Vec<Edit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBug {
    id: String,
    what: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    edits: Vec<Edit>,
    // A bug of one edit may have it without a list around it.
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    find: Option<String>,
    #[serde(default)]
    replace: Option<String>,
    #[serde(default, alias = "must_fail", alias = "must-fail")]
    caught_by: Vec<String>,
}

impl Bugs {
    /// The built-in bugs of a source.
    ///
    /// # Errors
    /// [`Error::UnknownEdits`] where there are none for it.
    pub fn builtin(source: &str) -> Result<Bugs> {
        match BUILTIN.iter().find(|(name, _)| *name == source) {
            Some((name, text)) => Bugs::parse(&format!("bugs of {name}"), text),
            None => Err(Error::UnknownEdits {
                path: "built-in bugs".to_owned(),
                id: source.to_owned(),
                known: BUILTIN.map(|(name, _)| name).join(", "),
            }),
        }
    }

    /// The sources that there are built-in bugs for.
    pub fn kernels() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// Reads a user's own file.
    ///
    /// # Errors
    /// [`Error::NotReadable`], [`Error::Io`] or [`Error::BadEdits`].
    pub fn load(path: &Path) -> Result<Bugs> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::named(path, e))?;
        Bugs::parse(&path.display().to_string(), &text)
    }

    /// Takes the text of a file: a mapping with `bugs`, or a mere list of them.
    fn parse(path: &str, text: &str) -> Result<Bugs> {
        let file = read_file(path, text)?;
        let bugs: Vec<Bug> =
            file.bugs.into_iter().map(|raw| bug(path, raw)).collect::<Result<_>>()?;
        let mut ids = BTreeSet::new();
        if bugs.is_empty() {
            return Err(bad(path, "there are no `bugs` in it".to_owned()));
        }
        match bugs.iter().find(|bug| !ids.insert(&bug.id)) {
            Some(bug) => Err(bad(path, format!("the id `{}` is there twice", bug.id))),
            None => Ok(Bugs { path: path.to_owned(), kernel: file.kernel, bugs }),
        }
    }

    /// The bug of this id.
    ///
    /// # Errors
    /// [`Error::UnknownEdits`] with the ids that there are.
    pub fn get(&self, id: &str) -> Result<&Bug> {
        self.bugs.iter().find(|bug| bug.id == id).ok_or_else(|| Error::UnknownEdits {
            path: self.path.clone(),
            id: id.to_owned(),
            known: self.bugs.iter().map(|bug| bug.id.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Edits {
    /// Reads the edits that a word names: a file, a bug in a file as `FILE#ID`, or the id of a
    /// built-in bug of `source`.
    ///
    /// # Errors
    /// [`Error::NotReadable`], [`Error::Io`], [`Error::BadEdits`] or [`Error::UnknownEdits`].
    pub fn load(word: &str, source: Option<&str>) -> Result<Edits> {
        if let Some(source) = source.filter(|_| !Path::new(word).exists() && !word.contains('#')) {
            return Ok(Bugs::builtin(source)?.get(word)?.edits.clone());
        }
        match word.split_once('#') {
            Some((file, id)) if !Path::new(word).exists() => {
                Ok(Bugs::load(Path::new(file))?.get(id)?.edits.clone())
            }
            _ => Edits::of_file(Path::new(word)),
        }
    }

    /// A file that is one set of edits: a list `edits`, or a single bug.
    fn of_file(path: &Path) -> Result<Edits> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::named(path, e))?;
        let file = read_file(&shown, &text)?;
        if !file.edits.is_empty() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c));
            return Ok(Edits { name: name.collect(), edits: file.edits });
        }
        let ids: Vec<&str> = file.bugs.iter().map(|bug| bug.id.as_str()).collect();
        match ids[..] {
            [_] => {}
            [] => return Err(bad(&shown, "there are neither `edits` nor `bugs` in it".to_owned())),
            [first, ..] => {
                let reason = format!(
                    "there are several bugs in it: name one, as in {shown}#{first}; there are {}",
                    ids.join(", ")
                );
                return Err(bad(&shown, reason));
            }
        }
        let only = file.bugs.into_iter().map(|raw| bug(&shown, raw)).next();
        only.unwrap_or_else(|| Err(bad(&shown, "there are no `edits` in it".to_owned())))
            .map(|bug| bug.edits)
    }
}

fn bad(path: &str, reason: String) -> Error {
    Error::BadEdits { path: path.to_owned(), reason }
}

fn read_file(path: &str, text: &str) -> Result<RawFile> {
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '%']));
    let is_list = lines.find(|line| *line != "---").is_some_and(|line| line.starts_with('-'));
    let read = match is_list {
        true => {
            serde_yaml::from_str(text).map(|bugs| RawFile { kernel: None, bugs, edits: Vec::new() })
        }
        false => serde_yaml::from_str(text),
    };
    read.map_err(|error| bad(path, error.to_string()))
}

fn bug(path: &str, raw: RawBug) -> Result<Bug> {
    let RawBug { id, what, why, mut edits, file, find, replace, caught_by } = raw;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if id.is_empty() || !id.chars().all(word) {
        let reason = format!("the id `{}` must be of a-z, 0-9 and -", id.escape_default());
        return Err(bad(path, reason));
    }
    match (file, find, replace) {
        (None, None, None) => {}
        (Some(file), Some(find), Some(replace)) => edits.insert(0, Edit { file, find, replace }),
        _ => return Err(bad(path, format!("{id}: an edit is `file`, `find` and `replace`"))),
    }
    if edits.is_empty() {
        return Err(bad(path, format!("{id}: there are no `edits`")));
    }
    if let Some(edit) = edits.iter().find(|edit| edit.find.is_empty() || edit.find == edit.replace)
    {
        let reason = format!("{id}: the edit of {} finds nothing or changes nothing", edit.file);
        return Err(bad(path, reason));
    }
    Ok(Bug { edits: Edits { name: id.clone(), edits }, id, what, why, caught_by })
}

/// The files that sets of edits make of a source, by path; `original` gives a file as the source
/// has it.
///
/// # Errors
/// [`Error::Anchor`] or [`Error::EditedFile`]; or what `original` says.
pub(crate) fn apply(
    sets: &[Edits],
    mut original: impl FnMut(&str) -> Result<Option<Vec<u8>>>,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for set in sets {
        for edit in &set.edits {
            let wrong = |reason: &str| Error::EditedFile {
                edits: set.name.clone(),
                file: edit.file.clone(),
                reason: reason.to_owned(),
            };
            let mut parts = Path::new(&edit.file).components();
            if edit.file.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
                return Err(wrong("is not a path below the root of the source"));
            }
            let before = match files.get(&edit.file) {
                Some(bytes) => bytes.clone(),
                None => original(&edit.file)?.ok_or_else(|| wrong("there is no such file"))?,
            };
            let before = String::from_utf8(before).map_err(|_| wrong("is not UTF-8"))?;
            // Overlapping ones count too: which is meant would be a guess.
            let found =
                before.char_indices().filter(|(at, _)| before[*at..].starts_with(&edit.find));
            let found = found.count();
            if found != 1 {
                let (edits, file) = (set.name.clone(), edit.file.clone());
                return Err(Error::Anchor { edits, file, found, find: edit.find.clone() });
            }
            let after = before.replacen(&edit.find, &edit.replace, 1);
            files.insert(edit.file.clone(), after.into_bytes());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(file: &str, find: &str, replace: &str) -> Edit {
        Edit { file: file.into(), find: find.into(), replace: replace.into() }
    }

    fn applied(edits: &[Edit]) -> Result<BTreeMap<String, Vec<u8>>> {
        let sets = [Edits { name: "set".into(), edits: edits.to_vec() }];
        apply(&sets, |file| Ok((file == "a/b.c").then(|| b"int one; int two; aaa".to_vec())))
    }

    #[track_caller]
    fn check_refused(edits: &[Edit], parts: &[&str]) {
        let error = applied(edits).unwrap_err();
        assert_eq!(error.fault(), crate::Fault::Source);
        for part in parts {
            assert!(error.to_string().contains(part), "`{part}` isn't in: {error}");
        }
    }

    #[test]
    fn applies_edits_in_order() {
        let both = [edit("a/b.c", "one", "three"), edit("a/b.c", "three; int two", "four")];
        let files = applied(&both).unwrap();
        assert_eq!(files["a/b.c"], b"int four; aaa");
    }

    #[test]
    fn requires_an_anchor_to_occur_once() {
        check_refused(&[edit("a/b.c", "int", "x")], &["set: in a/b.c", "2 times", "`int`"]);
        check_refused(&[edit("a/b.c", "aa", "x")], &["2 times"]);
        check_refused(&[edit("a/b.c", "\n\nsix\nseven", "x")], &["nowhere", "`six` ..."]);
        // What an earlier edit took is not there any more.
        check_refused(&[edit("a/b.c", "one", "x"), edit("a/b.c", "one", "y")], &["nowhere"]);
        check_refused(&[edit("no.c", "one", "x")], &["no.c", "there is no such file"]);
        for outside in ["../b.c", "/etc/passwd", "a/../../b.c", ""] {
            check_refused(&[edit(outside, "one", "x")], &["not a path below"]);
        }
    }

    #[test]
    fn reads_each_file_format() {
        let whole = "kernel: linux-5.10\nbugs:\n  - id: a-1\n    what: w\n    why: y\n    caught-by: [c]\n    \
            edits:\n      - {file: f, find: x, replace: y}\n";
        let bugs = Bugs::parse("f.yaml", whole).unwrap();
        assert_eq!(bugs.kernel.as_deref(), Some("linux-5.10"));
        assert_eq!(bugs.get("a-1").unwrap().caught_by, ["c"]);
        let list =
            "# c\n- id: a\n  what: w\n  file: f\n  find: x\n  replace: \"y\"\n  must_fail: [c]\n";
        let bugs = Bugs::parse("f.yaml", list).unwrap();
        assert_eq!(bugs.bugs[0].edits.edits, [edit("f", "x", "y")]);
        let error = bugs.get("b").unwrap_err().to_string();
        assert!(error.contains("no `b`") && error.contains("there are a"), "{error}");
    }

    #[track_caller]
    fn check_bad(text: &str, parts: &[&str]) {
        let error = Bugs::parse("f.yaml", text).unwrap_err().to_string();
        for part in parts.iter().chain(&["f.yaml"]) {
            assert!(error.contains(part), "`{part}` isn't in: {error}");
        }
    }

    #[test]
    fn reports_mistakes() {
        check_bad("bugs: []", &["no `bugs`"]);
        check_bad("- id: A\n  what: w\n", &["the id `A`"]);
        check_bad("- id: a\n  what: w\n", &["a: there are no `edits`"]);
        check_bad("- id: a\n  what: w\n  file: f\n", &["`file`, `find` and `replace`"]);
        check_bad("- id: a\n  what: w\n  file: f\n  find: x\n  replace: x\n", &["changes nothing"]);
        check_bad("- id: a\n  wat: w\n", &["wat"]);
        let one = "- id: a\n  what: w\n  file: f\n  find: x\n  replace: y\n";
        check_bad(&format!("{one}{one}"), &["the id `a` is there twice"]);
    }

    #[test]
    fn finds_edits_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my edits.yaml");
        std::fs::write(&path, "edits:\n  - {file: f, find: x, replace: y}\n").unwrap();
        let edits = Edits::load(path.to_str().unwrap(), Some("linux-5.10")).unwrap();
        assert_eq!(edits, Edits { name: "myedits".into(), edits: vec![edit("f", "x", "y")] });
        let two = dir.path().join("two.yaml");
        let one = "- id: a\n  what: w\n  file: f\n  find: x\n  replace: y\n";
        std::fs::write(&two, format!("{one}{}", one.replace("id: a", "id: b"))).unwrap();
        let word = format!("{}#b", two.display());
        assert_eq!(Edits::load(&word, None).unwrap().name, "b");
        let error = Edits::load(two.to_str().unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("#a") && error.contains("a, b"), "{error}");
        let error = Edits::load("no-such-bug", Some("linux-5.10")).unwrap_err().to_string();
        assert!(error.contains("fix-reverted"), "{error}");
    }

    #[test]
    fn treats_a_missing_edit_file_as_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.yaml");
        let word = path.to_str().unwrap();
        let bug = format!("{word}#a");
        let errors = [
            Edits::load(word, None).unwrap_err(),
            Edits::load(&bug, Some("linux-5.10")).unwrap_err(),
            Bugs::load(&path).unwrap_err(),
            Bugs::load(dir.path()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.fault(), crate::Fault::Request, "{error}");
            assert!(error.to_string().starts_with(dir.path().to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn parses_the_builtin_bugs() {
        for kernel in Bugs::kernels() {
            let bugs = Bugs::builtin(kernel).unwrap();
            assert_eq!(bugs.kernel.as_deref(), Some(kernel));
            for bug in &bugs.bugs {
                assert!(!bug.why.is_empty() && !bug.caught_by.is_empty(), "{kernel}: {}", bug.id);
            }
        }
        let ids = |kernel| -> BTreeSet<String> {
            Bugs::builtin(kernel).unwrap().bugs.into_iter().map(|bug| bug.id).collect()
        };
        let both = ids("linux-5.10").intersection(&ids("linux-6.12")).count();
        assert!(both >= 1, "kinds of bugs that both kernels are tried with: {both}");
    }
}
