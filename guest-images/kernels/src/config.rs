//! Configuration fragments: merged, given to the kernel's own configuration, and held against what
//! comes out of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::{Error, Result};

/// Built-in fragments, by name. The first is a part of every kernel.
const BUILTIN: [(&str, &str); 4] = [
    ("base", include_str!("../data/config/base.config")),
    ("dma-debug", include_str!("../data/config/dma-debug.config")),
    ("kasan", include_str!("../data/config/kasan.config")),
    ("lockdep", include_str!("../data/config/lockdep.config")),
];

/// What a comment above options says that not every kernel has.
const OPTIONAL: &str = "# optional:";

/// A part of a configuration, in the kernel's own form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its name or path, for messages.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Options with the values that they are to have, `n` for those that are to be off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestedConfig {
    options: BTreeMap<String, Want>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Want {
    value: String,
    optional: bool,
}

impl Fragment {
    /// A built-in one.
    pub fn builtin(name: &str) -> Option<Fragment> {
        let (name, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        Some(Fragment { path: format!("{name}.config"), text: (*text).to_owned() })
    }

    /// The names of the built-in ones that a kernel has only where it is asked for.
    pub fn options() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().skip(1).map(|(name, _)| *name)
    }

    /// What every kernel has.
    pub(crate) fn base() -> Fragment {
        let (name, text) = BUILTIN[0];
        Fragment { path: format!("{name}.config"), text: text.to_owned() }
    }

    /// Reads a built-in one by its name, or a user's own file.
    ///
    /// # Errors
    /// [`Error::UnknownFragment`], [`Error::NotReadable`] or [`Error::Io`].
    pub fn load(word: &str) -> Result<Fragment> {
        if let Some(builtin) = Fragment::builtin(word) {
            return Ok(builtin);
        }
        let path = Path::new(word);
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            // A word without a directory is as likely a misspelt name as a file that is gone.
            ErrorKind::NotFound => Error::UnknownFragment {
                word: word.to_owned(),
                known: Fragment::options().collect::<Vec<_>>().join(", "),
            },
            _ => Error::named(path, error),
        })?;
        Ok(Fragment { path: word.to_owned(), text })
    }
}

impl RequestedConfig {
    /// Puts fragments together; of two that set an option the later one counts.
    pub(crate) fn merge(fragments: &[Fragment]) -> Result<RequestedConfig> {
        let mut options = BTreeMap::new();
        for fragment in fragments {
            let mut optional = false;
            for (number, line) in fragment.text.lines().enumerate() {
                let line = line.trim();
                optional = !line.is_empty() && (optional || line.starts_with(OPTIONAL));
                match setting(line) {
                    Some(Some((name, value))) => {
                        let want = Want { value: value.to_owned(), optional };
                        options.insert(name.to_owned(), want);
                    }
                    Some(None) => {}
                    None => {
                        return Err(Error::BadFragment {
                            path: fragment.path.clone(),
                            line: number + 1,
                            text: line.to_owned(),
                        });
                    }
                }
            }
        }
        Ok(RequestedConfig { options })
    }

    /// As a file that the kernel's configuration reads.
    pub(crate) fn text(&self) -> String {
        let line = |(name, want): (&String, &Want)| match want.value.as_str() {
            "n" => format!("# {name} is not set\n"),
            value => format!("{name}={value}\n"),
        };
        self.options.iter().map(line).collect()
    }

    /// The options that came out otherwise, with what was asked for.
    pub(crate) fn lost(&self, config: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
        let lost = self.options.iter().filter(|(name, want)| {
            let found = config.get(*name).map_or("n", String::as_str);
            found != want.value && !want.optional
        });
        lost.map(|(name, want)| (name.as_str(), want.value.as_str())).collect()
    }
}

/// The options that are set in a `.config`, with their values.
pub(crate) fn settings(config: &str) -> BTreeMap<String, String> {
    let all = config.lines().filter_map(|line| setting(line.trim()).flatten());
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What a line sets: `Some(None)` where it says nothing, `None` where it is not of the form.
fn setting(line: &str) -> Option<Option<(&str, &str)>> {
    let is_name = |name: &str| {
        name.strip_prefix("CONFIG_").is_some_and(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    };
    if let Some(comment) = line.strip_prefix('#') {
        let off = comment.trim().strip_suffix(" is not set").filter(|name| is_name(name));
        return Some(off.map(|name| (name, "n")));
    }
    if line.is_empty() {
        return Some(None);
    }
    let (name, value) = line.split_once('=')?;
    (is_name(name) && !value.is_empty()).then_some(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(text: &str) -> Fragment {
        Fragment { path: "mine.config".into(), text: text.into() }
    }

    #[test]
    fn merges_fragments_and_finds_lost_options() {
        let a = fragment("CONFIG_A=y\nCONFIG_B=m\n# c\nCONFIG_N=\"x y\"\n# CONFIG_D is not set\n");
        let b = fragment(
            "\n# CONFIG_B is not set\n\n# optional: not everywhere\nCONFIG_O=y\n\nCONFIG_P=y\n",
        );
        let wanted = RequestedConfig::merge(&[a, b]).unwrap();
        assert_eq!(
            wanted.text(),
            "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_D is not set\nCONFIG_N=\"x y\"\nCONFIG_O=y\n\
             CONFIG_P=y\n"
        );
        let came_out =
            settings("CONFIG_A=y\nCONFIG_N=\"x y\"\nCONFIG_P=y\n# CONFIG_Z is not set\n");
        assert!(wanted.lost(&came_out).is_empty());
        let came_out = settings("CONFIG_A=m\nCONFIG_D=y\nCONFIG_N=\"x y\"\n");
        assert_eq!(
            wanted.lost(&came_out),
            [("CONFIG_A", "y"), ("CONFIG_D", "n"), ("CONFIG_P", "y")]
        );
    }

    #[test]
    fn refuses_lines_that_are_not_settings() {
        for bad in ["CONFIG_A", "A=y", "CONFIG_A B=y", "CONFIG_=y", "CONFIG_A="] {
            let error =
                RequestedConfig::merge(&[fragment(&format!("\n{bad}\n"))]).unwrap_err().to_string();
            assert!(error.starts_with("mine.config:2: "), "{error}");
        }
    }

    #[test]
    fn parses_the_builtin_fragments() {
        for name in Fragment::options() {
            let both = [Fragment::base(), Fragment::builtin(name).unwrap()];
            assert!(RequestedConfig::merge(&both).unwrap().options.len() > 60, "{name}");
        }
        assert_eq!(Fragment::load("kasan").unwrap().path, "kasan.config");
    }

    #[test]
    fn lists_the_fragments_for_a_misspelt_name() {
        let error = Fragment::load("kasn").unwrap_err();
        assert_eq!(error.fault(), crate::Fault::Request);
        let text = error.to_string();
        assert!(text.contains("`kasn`") && text.contains("(dma-debug, kasan, lockdep)"), "{text}");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
        for wrong in ["", "binary", "binary/below"] {
            let error = Fragment::load(dir.path().join(wrong).to_str().unwrap()).unwrap_err();
            assert_eq!(error.fault(), crate::Fault::Request, "{error}");
        }
    }
}
