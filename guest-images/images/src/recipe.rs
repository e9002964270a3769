use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Result};

const BUILTIN: &str = include_str!("../../recipes.yaml");
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The name by which the default QEMU can be called.
pub(crate) const QEMU_ALIAS: &str = "qemu";

/// How to get one kernel, source or QEMU from a Debian archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What the user calls it, as in `debian-6.1`.
    pub name: String,
    /// What it gives.
    pub kind: Kind,
    /// The suite of the archive, as in `trixie-backports`.
    pub suite: String,
    /// The suite of the same archive that `suite` is an addition to, as `trixie` is for its
    /// backports; it has the libraries that a QEMU needs besides.
    pub base: Option<String>,
    /// The archive that has the suite.
    pub archive: Archive,
    /// Further suites whose packages replace older ones of `suite`, as `bookworm-security` has
    /// newer kernels than `bookworm`.
    pub updates: Vec<UpdateSuite>,
    /// The meta package whose dependencies lead to the newest image or source, or the package with
    /// the QEMU.
    pub package: String,
    /// Whether it is taken when the user names none.
    pub default: bool,
    /// The keyring that the suite's signature must be from.
    pub keyring: PathBuf,
}

/// A suite with newer packages for another suite.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateSuite {
    /// The suite of the archive, as in `bookworm-security`.
    pub suite: String,
    /// The archive that has the suite.
    pub archive: Archive,
}

/// What a recipe gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kernel, with its modules.
    Kernel,
    /// The source of a kernel.
    Source,
    /// A QEMU, with all that it needs to run.
    Qemu,
}

/// Which of Debian's archives has a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// Releases, updates and backports.
    Debian,
    /// Security updates.
    DebianSecurity,
}

/// Recipes with unique names: one of the kernels is the default, and one of the QEMUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipes {
    kernels: Vec<Recipe>,
    sources: Vec<Recipe>,
    qemus: Vec<Recipe>,
}

/// What a list leaves out is as it is built in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    kernels: Option<Vec<RawRecipe>>,
    #[serde(default)]
    sources: Option<Vec<RawRecipe>>,
    #[serde(default)]
    qemus: Option<Vec<RawRecipe>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipe {
    name: String,
    suite: String,
    #[serde(default)]
    base: Option<String>,
    archive: Archive,
    #[serde(default)]
    updates: Vec<UpdateSuite>,
    package: String,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    keyring: Option<PathBuf>,
}

impl Recipes {
    /// The recipes that come with the rig.
    ///
    /// # Panics
    /// Never: a test parses them.
    pub fn builtin() -> Recipes {
        Recipes::parse(BUILTIN, Path::new("recipes.yaml"), None)
            .expect("the embedded recipes are tested")
    }

    /// Reads a user's own file. Each of its lists (kernels, sources, QEMUs) replaces the built-in
    /// one.
    pub fn load(path: &Path) -> Result<Recipes> {
        let text = fs::read_to_string(path).map_err(|e| Error::io("read recipes", path, e))?;
        Recipes::parse(&text, path, Some(Recipes::builtin()))
    }

    fn parse(text: &str, path: &Path, else_take: Option<Recipes>) -> Result<Recipes> {
        let fail = |reason: String| Error::Recipes { path: path.to_owned(), reason };
        let raw: RawFile = serde_yaml::from_str(text).map_err(|e| fail(e.to_string()))?;
        if raw.kernels.is_none() && raw.sources.is_none() && raw.qemus.is_none() {
            return Err(fail("there is neither `kernels` nor `sources` nor `qemus` in it".into()));
        }
        let kernels = raw.kernels.map(|list| recipes_of(list, Kind::Kernel));
        let sources = raw.sources.map(|list| recipes_of(list, Kind::Source));
        let qemus = raw.qemus.map(|list| recipes_of(list, Kind::Qemu));
        let none = Recipes { kernels: Vec::new(), sources: Vec::new(), qemus: Vec::new() };
        let other = else_take.unwrap_or(none);
        let recipes = Recipes {
            kernels: kernels.unwrap_or(other.kernels),
            sources: sources.unwrap_or(other.sources),
            qemus: qemus.unwrap_or(other.qemus),
        };
        let problems = problems(&recipes);
        if problems.is_empty() { Ok(recipes) } else { Err(fail(problems.join("; "))) }
    }

    /// The kernel's recipe of that name.
    pub fn get(&self, name: &str) -> Option<&Recipe> {
        self.kernels.iter().find(|r| r.name == name)
    }

    /// The source's recipe of that name.
    pub fn source(&self, name: &str) -> Option<&Recipe> {
        self.sources.iter().find(|r| r.name == name)
    }

    /// The QEMU's recipe of that name; `qemu` is the default one.
    pub fn qemu(&self, name: &str) -> Option<&Recipe> {
        if name == QEMU_ALIAS {
            return Some(self.default_qemu());
        }
        self.qemus.iter().find(|r| r.name == name)
    }

    /// The kernel to take when none is named: the one marked `default`, else the first.
    pub fn default_recipe(&self) -> &Recipe {
        default_of(&self.kernels)
    }

    /// The QEMU that is called `qemu`: the one marked `default`, else the first.
    pub fn default_qemu(&self) -> &Recipe {
        default_of(&self.qemus)
    }

    /// All kernels, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Recipe> {
        self.kernels.iter()
    }

    /// All sources, in the file's order.
    pub fn sources(&self) -> impl Iterator<Item = &Recipe> {
        self.sources.iter()
    }

    /// All QEMUs, in the file's order.
    pub fn qemus(&self) -> impl Iterator<Item = &Recipe> {
        self.qemus.iter()
    }

    /// All names of kernels, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|r| r.name.as_str())
    }
}

/// No list is empty: that is a problem of its own.
fn default_of(list: &[Recipe]) -> &Recipe {
    list.iter().find(|r| r.default).unwrap_or(&list[0])
}

fn recipes_of(list: Vec<RawRecipe>, kind: Kind) -> Vec<Recipe> {
    let recipe = |raw: RawRecipe| {
        let RawRecipe { name, suite, base, archive, updates, package, default, keyring } = raw;
        let keyring = keyring.unwrap_or_else(|| KEYRING.into());
        Recipe { name, kind, suite, base, archive, updates, package, default, keyring }
    };
    list.into_iter().map(recipe).collect()
}

impl Archive {
    /// Its name, which is also how the path of a mirror's URL ends.
    pub fn name(self) -> &'static str {
        match self {
            Archive::Debian => "debian",
            Archive::DebianSecurity => "debian-security",
        }
    }

    /// The environment variable that sets its mirror.
    pub fn setting(self) -> &'static str {
        match self {
            Archive::Debian => "DMARIG_MIRROR",
            Archive::DebianSecurity => "DMARIG_SECURITY_MIRROR",
        }
    }
}

/// Everything that is wrong with the values, together.
fn problems(recipes: &Recipes) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = BTreeSet::from([QEMU_ALIAS]);
    let lists =
        [("kernels", &recipes.kernels), ("sources", &recipes.sources), ("qemus", &recipes.qemus)];
    for (key, list) in lists {
        if list.is_empty() {
            found.push(format!("`{key}` is empty: give at least one"));
        }
        for recipe in list {
            match recipe.name.as_str() {
                QEMU_ALIAS => found.push(format!("the name `{QEMU_ALIAS}` means the default QEMU")),
                name if !names.insert(name) => {
                    found.push(format!("the name `{}` is there twice", name.escape_default()));
                }
                _ => {}
            }
            found.extend(bad_values(recipe));
        }
        let defaults: Vec<_> = list.iter().filter(|r| r.default).map(|r| r.name.as_str()).collect();
        if defaults.len() > 1 {
            let names = defaults.join(", ");
            found.push(format!("more than one `default: true` in `{key}` ({names}): keep one"));
        }
    }
    found
}

fn bad_values(recipe: &Recipe) -> Vec<String> {
    let (name, mut found) = (recipe.name.escape_default(), Vec::new());
    // Names become file names, and all become arguments of apt or a line it reads.
    let words = [("name", &recipe.name), ("suite", &recipe.suite), ("package", &recipe.package)];
    let base = recipe.base.iter().map(|base| ("base", base));
    let updates = recipe.updates.iter().map(|update| ("updates: suite", &update.suite));
    let words = words.into_iter().chain(base).chain(updates);
    for (key, value) in words.filter(|(_, value)| !is_word(value)) {
        found.push(format!(
            "{key} `{}` of `{name}`: letters, digits and `.+-_` only, starting with a letter or digit",
            value.escape_default(),
        ));
    }
    if recipe.base.is_some() && recipe.kind != Kind::Qemu {
        found.push(format!("`base` of `{name}`: only a QEMU has one"));
    }
    if recipe.base.as_ref() == Some(&recipe.suite) {
        found.push(format!("base of `{name}` is its suite: leave it out"));
    }
    let keyring = recipe.keyring.to_string_lossy();
    if !recipe.keyring.is_absolute() || keyring.contains([' ', ']', '"', '\n']) {
        found.push(format!(
            "keyring `{}` of `{name}`: an absolute path without blanks or brackets",
            keyring.escape_default()
        ));
    }
    found
}

pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-_".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipes> {
        Recipes::parse(text, Path::new("mine.yaml"), Some(Recipes::builtin()))
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &[&str]) {
        let error = parse(text).unwrap_err().to_string();
        for part in expected.iter().chain(&["mine.yaml"]) {
            assert!(error.contains(part), "`{part}` isn't in: {error}");
        }
    }

    #[test]
    fn parses_the_builtin_recipes() {
        let recipes = Recipes::builtin();
        let names: Vec<_> = recipes.names().collect();
        assert_eq!(names, ["debian-5.10", "debian-6.1", "debian-6.12", "debian-7.3"]);
        assert_eq!(recipes.default_recipe().name, "debian-6.1");
        assert_eq!(recipes.get("debian-5.10").unwrap().archive, Archive::DebianSecurity);
        let all = recipes.iter().chain(recipes.sources()).chain(recipes.qemus());
        for recipe in all.filter(|recipe| !recipe.suite.contains('-')) {
            let security = UpdateSuite {
                suite: format!("{}-security", recipe.suite),
                archive: Archive::DebianSecurity,
            };
            assert!(recipe.updates.contains(&security), "{}", recipe.name);
        }
        let names: Vec<_> = recipes.qemus().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["qemu-7.2", "qemu-10.0", "qemu-11.1"]);
        assert_eq!(recipes.qemu("qemu").unwrap().name, "qemu-11.1");
        assert_eq!(recipes.qemu("qemu-11.1").unwrap().base.as_deref(), Some("trixie"));
        assert!(recipes.qemu("debian-6.1").is_none() && recipes.get("qemu-7.2").is_none());
        let names: Vec<_> = recipes.sources().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["linux-5.10", "linux-6.1", "linux-6.12", "linux-7.3"]);
        assert!(recipes.source("linux-7.3").is_some() && recipes.get("linux-7.3").is_none());
        assert!(recipes.iter().all(|r| r.kind == Kind::Kernel));
        assert!(recipes.sources().all(|r| r.kind == Kind::Source));
        assert!(recipes.qemus().all(|r| r.kind == Kind::Qemu));
    }

    const KERNELS: &str = "kernels:\n  - {name: a, suite: s, archive: debian, package: p}\n";
    const QEMUS: &str = "qemus:\n  - {name: q, suite: t, base: s, archive: debian, package: p}\n";

    #[test]
    fn replaces_the_builtin_list_of_the_same_kind() {
        let recipes = parse(KERNELS).unwrap();
        assert_eq!(recipes.names().collect::<Vec<_>>(), ["a"]);
        assert_eq!(recipes.qemus, Recipes::builtin().qemus);
        let recipes = parse(QEMUS).unwrap();
        assert_eq!(recipes.kernels, Recipes::builtin().kernels);
        assert_eq!(recipes.qemu("qemu"), recipes.qemu("q"));
        check_refused("{}", &["neither `kernels` nor `sources` nor `qemus`"]);
    }

    #[test]
    fn reports_mistakes() {
        check_refused("kernels: []", &["`kernels` is empty: give at least one"]);
        check_refused(&KERNELS.replace("suite:", "sweet:"), &["sweet", "2"]);
        check_refused(&KERNELS.replace("debian", "fedora"), &["fedora", "debian-security"]);
        check_refused(
            &KERNELS.replace("name: a", "name: ../a").replace("suite: s", "suite: 's main [x]'"),
            &["name `../a`", "suite `s main [x]`"],
        );
        let twice = format!("{KERNELS}{}", KERNELS.lines().nth(1).unwrap());
        check_refused(&twice, &["`a` is there twice"]);
        check_refused(&KERNELS.replace("package: p", "package: p, keyring: k.gpg"), &["absolute"]);
        check_refused(&KERNELS.replace("suite: s", "suite: s, base: t"), &["only a QEMU has one"]);
        let updates =
            |value: &str| KERNELS.replace("suite: s", &format!("suite: s, updates: {value}"));
        check_refused(
            &updates("[{suite: '-u', archive: debian}]"),
            &["updates: suite `-u` of `a`"],
        );
        check_refused(&updates("[{suite: u}]"), &["archive"]);
    }

    #[test]
    fn reports_mistakes_in_qemus() {
        check_refused("qemus: []", &["`qemus` is empty: give at least one"]);
        check_refused(&QEMUS.replace("base: s", "base: '-s'"), &["base `-s` of `q`"]);
        check_refused(&QEMUS.replace("base: s", "base: t"), &["base of `q` is its suite"]);
        check_refused(&QEMUS.replace("base:", "bass:"), &["bass", "2"]);
        check_refused(&QEMUS.replace("name: q", "name: qemu"), &["means the default QEMU"]);
        let both = format!("{KERNELS}{}", KERNELS.replace("kernels", "sources"));
        check_refused(&both, &["`a` is there twice"]);
        let both = format!("{KERNELS}{}", QEMUS.replace("name: q", "name: a"));
        check_refused(&both, &["`a` is there twice"]);
        let two = QEMUS.lines().nth(1).unwrap().replace("archive", "default: true, archive");
        let two = format!("qemus:\n{two}\n{}\n", two.replace("name: q", "name: r"));
        check_refused(&two, &["more than one `default: true` in `qemus` (q, r)"]);
    }
}
