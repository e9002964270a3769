use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Result};

const BUILTIN: &str = include_str!("../../recipes.yaml");
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How to get one kernel from a Debian archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What the user calls it, as in `debian-6.1`.
    pub name: String,
    /// The suite of the archive, as in `trixie-backports`.
    pub suite: String,
    /// The archive that has the suite.
    pub archive: Archive,
    /// The meta package whose dependencies lead to the newest image.
    pub package: String,
    /// Whether it is taken when the user names none.
    pub default: bool,
    /// The keyring that the suite's signature must be from.
    pub keyring: PathBuf,
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

/// A list of recipes with unique names, of which one is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipes {
    list: Vec<Recipe>,
    default: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    kernels: Vec<RawRecipe>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipe {
    name: String,
    suite: String,
    archive: Archive,
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
        Recipes::parse(BUILTIN, Path::new("recipes.yaml")).expect("the embedded recipes are tested")
    }

    /// Reads a user's own list.
    pub fn load(path: &Path) -> Result<Recipes> {
        let text = fs::read_to_string(path).map_err(|e| Error::io("read recipes", path, e))?;
        Recipes::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Recipes> {
        let fail = |reason: String| Error::Recipes { path: path.to_owned(), reason };
        let raw: RawFile = serde_yaml::from_str(text).map_err(|e| fail(e.to_string()))?;
        let list: Vec<Recipe> = raw.kernels.into_iter().map(Recipe::from).collect();
        let problems = problems(&list);
        if !problems.is_empty() {
            return Err(fail(problems.join("; ")));
        }
        let default = list.iter().position(|r| r.default).unwrap_or(0);
        Ok(Recipes { list, default })
    }

    /// The recipe of that name.
    pub fn get(&self, name: &str) -> Option<&Recipe> {
        self.list.iter().find(|r| r.name == name)
    }

    /// The recipe to take when none is named: the one marked `default`, else the first.
    pub fn default_recipe(&self) -> &Recipe {
        &self.list[self.default]
    }

    /// All, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Recipe> {
        self.list.iter()
    }

    /// All names, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|r| r.name.as_str())
    }
}

impl From<RawRecipe> for Recipe {
    fn from(raw: RawRecipe) -> Recipe {
        let RawRecipe { name, suite, archive, package, default, keyring } = raw;
        let keyring = keyring.unwrap_or_else(|| KEYRING.into());
        Recipe { name, suite, archive, package, default, keyring }
    }
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
fn problems(list: &[Recipe]) -> Vec<String> {
    let mut found = Vec::new();
    if list.is_empty() {
        found.push("`kernels` is empty: give at least one".to_owned());
    }
    let mut names = BTreeSet::new();
    for recipe in list {
        let name = &recipe.name;
        if !names.insert(name) {
            found.push(format!("the name `{name}` is there twice"));
        }
        // Names become file names, and all three become arguments of apt or a line it reads.
        for (key, value) in [("name", name), ("suite", &recipe.suite), ("package", &recipe.package)]
        {
            if !is_word(value) {
                found.push(format!(
                    "{key} `{}` of `{}`: letters, digits and `.+-_` only, starting with a letter or digit",
                    value.escape_default(),
                    name.escape_default()
                ));
            }
        }
        let keyring = recipe.keyring.to_string_lossy();
        if !recipe.keyring.is_absolute() || keyring.contains([' ', ']', '"', '\n']) {
            found.push(format!(
                "keyring `{}` of `{name}`: an absolute path without blanks or brackets",
                keyring.escape_default()
            ));
        }
    }
    let defaults: Vec<_> = list.iter().filter(|r| r.default).map(|r| r.name.as_str()).collect();
    if defaults.len() > 1 {
        found.push(format!("more than one `default: true` ({}): keep one", defaults.join(", ")));
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

    #[track_caller]
    fn check_refused(text: &str, expected: &[&str]) {
        let error = Recipes::parse(text, Path::new("mine.yaml")).unwrap_err().to_string();
        for part in expected.iter().chain(&["mine.yaml"]) {
            assert!(error.contains(part), "`{part}` isn't in: {error}");
        }
    }

    #[test]
    fn builtin_recipes_parse() {
        let recipes = Recipes::builtin();
        let names: Vec<_> = recipes.names().collect();
        assert_eq!(names, ["debian-5.10", "debian-6.1", "debian-6.12", "debian-7.3"]);
        assert_eq!(recipes.default_recipe().name, "debian-6.1");
        assert_eq!(recipes.get("debian-5.10").unwrap().archive, Archive::DebianSecurity);
    }

    #[test]
    fn mistakes_are_named() {
        check_refused("kernels: []", &["at least one"]);
        let good = "kernels:\n  - {name: a, suite: s, archive: debian, package: p}\n";
        check_refused(&good.replace("suite:", "sweet:"), &["sweet", "2"]);
        check_refused(&good.replace("debian", "fedora"), &["fedora", "debian-security"]);
        check_refused(
            &good.replace("name: a", "name: ../a").replace("suite: s", "suite: 's main [x]'"),
            &["name `../a`", "suite `s main [x]`"],
        );
        check_refused(&format!("{good}{}", good.lines().nth(1).unwrap()), &["`a` is there twice"]);
        check_refused(&good.replace("package: p", "package: p, keyring: k.gpg"), &["absolute"]);
    }
}
