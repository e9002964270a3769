//! Finds the mirrors that this host's own apt uses, so that the rig needs to name none.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Archive, Error, Result};

/// The mirrors that the user set. What is `None` comes from the host's apt configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// For releases and backports (`DMARIG_MIRROR`): a URL that ends in `/debian`.
    pub debian: Option<String>,
    /// For security updates (`DMARIG_SECURITY_MIRROR`): a URL that ends in `/debian-security`.
    pub security: Option<String>,
}

impl Mirrors {
    /// The URL to take for `archive`, without a slash at its end. `etc_apt` is `/etc/apt`.
    pub(crate) fn url(&self, archive: Archive, etc_apt: &Path) -> Result<String> {
        let set = match archive {
            Archive::Debian => &self.debian,
            Archive::DebianSecurity => &self.security,
        };
        if let Some(url) = set.as_deref().filter(|url| !url.is_empty()) {
            let setting = archive.setting();
            return match is_usable(url) {
                true => Ok(url.trim_end_matches('/').to_owned()),
                false => Err(Error::BadMirror { setting, url: url.to_owned() }),
            };
        }
        from_system(archive, etc_apt)
    }
}

/// One line of a sources.list, or one combination from a stanza of a .sources file.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

fn from_system(archive: Archive, etc_apt: &Path) -> Result<String> {
    let files = source_files(etc_apt);
    // A file that can't be read (another user's, mode 0600) is as good as absent.
    let sources = files.iter().filter_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        let deb822 = path.extension().is_some_and(|e| e == "sources");
        Some(if deb822 { parse_deb822(&text) } else { parse_list(&text) })
    });
    sources.flatten().filter(|s| s.serves(archive)).min_by_key(Source::rank).map_or_else(
        || {
            let looked_at = match files.len() {
                0 => format!("{} has no sources", etc_apt.display()),
                n => format!("none of the {n} source files in {} has one", etc_apt.display()),
            };
            Err(Error::NoMirror { archive: archive.name(), setting: archive.setting(), looked_at })
        },
        |source| Ok(source.uri.trim_end_matches('/').to_owned()),
    )
}

fn source_files(etc_apt: &Path) -> Vec<PathBuf> {
    let mut files = vec![etc_apt.join("sources.list")];
    files.retain(|path| path.exists());
    let entries = fs::read_dir(etc_apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "list" || e == "sources"))
        .collect();
    parts.sort();
    files.append(&mut parts);
    files
}

impl Source {
    fn serves(&self, archive: Archive) -> bool {
        let path = self.uri.trim_end_matches('/');
        is_usable(path)
            && path.ends_with(&format!("/{}", archive.name()))
            && self.components.iter().any(|c| c == "main")
            && self.suites.iter().any(|s| is_debian_suite(s))
    }

    /// Others have archives whose URL ends in /debian too. The official ones are signed by
    /// Debian's keyring, or by what apt trusts without being told.
    fn rank(&self) -> u8 {
        match &self.signed_by {
            Some(keyring) if keyring.contains("debian-archive") => 0,
            None => 1,
            Some(_) => 2,
        }
    }
}

fn is_usable(url: &str) -> bool {
    ["http://", "https://", "file:/"].iter().any(|scheme| url.starts_with(scheme))
        && !url.contains(|c: char| c.is_whitespace() || c.is_control() || "[]\"'".contains(c))
}

/// Whether the suite is one of Debian's: a code name or an alias, with or without a suffix as in
/// `-updates`, `-backports`, `/updates`.
fn is_debian_suite(suite: &str) -> bool {
    const NAMES: &[&str] = &[
        "stretch",
        "buster",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "unstable",
        "testing",
        "stable",
        "oldstable",
        "oldoldstable",
    ];
    NAMES.contains(&suite.split(['-', '/']).next().unwrap_or(suite))
}

/// The one-line style of sources.list(5): `deb [option=value ...] uri suite component...`.
fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_list_line).collect()
}

fn parse_list_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb").filter(|r| r.starts_with([' ', '\t']))?.trim();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after.trim();
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uri, suites: vec![suite], components: words.collect(), signed_by })
}

/// The deb822 style of sources.list(5): stanzas of `Key: value`, continued by indented lines.
fn parse_deb822(text: &str) -> Vec<Source> {
    let uncommented: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    uncommented.split(|line| line.trim().is_empty()).flat_map(parse_stanza).collect()
}

fn parse_stanza(lines: &[&str]) -> Vec<Source> {
    let value = |key: &str| crate::deb822::field(lines, key).unwrap_or_default();
    let words =
        |key: &str| -> Vec<String> { value(key).split_whitespace().map(str::to_owned).collect() };
    let disabled = matches!(value("Enabled").to_lowercase().as_str(), "no" | "false" | "0");
    if disabled || !words("Types").iter().any(|t| t == "deb") {
        return Vec::new();
    }
    let signed_by = Some(value("Signed-By")).filter(|v| !v.is_empty());
    let source = |uri| Source {
        uri,
        suites: words("Suites"),
        components: words("Components"),
        signed_by: signed_by.clone(),
    };
    words("URIs").into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etc_apt(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], debian: Option<&str>, security: Option<&str>) {
        let dir = etc_apt(files);
        let found = |archive| Mirrors::default().url(archive, dir.path());
        assert_eq!(found(Archive::Debian).ok().as_deref(), debian);
        assert_eq!(found(Archive::DebianSecurity).ok().as_deref(), security);
    }

    #[test]
    fn reads_the_one_line_style() {
        let text = "# deb http://old.test/debian bookworm main\n\
            deb-src http://src.test/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k/docker.gpg] https://docker.test/linux/debian bookworm stable\n\
            deb [ signed-by=/k/other.gpg ] https://other.test/debian stable main\n\
            deb\thttp://m.test/debian/ bookworm main contrib # local\n\
            deb http://m.test/debian-security bookworm-security main\n";
        let found = (Some("http://m.test/debian"), Some("http://m.test/debian-security"));
        check(&[("sources.list", text)], found.0, found.1);
    }

    #[test]
    fn reads_the_deb822_style() {
        let text = "Types: deb\nURIs: http://off.test/debian\nSuites: trixie\nComponents: main\nEnabled: no\n\n\
            Types: deb deb-src\n# a comment\nURIs:\n http://a.test/debian\n http://b.test/debian\n\
            suites: trixie trixie-updates\nComponents: main\n\
            Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        check(&[("sources.list.d/d.sources", text)], Some("http://a.test/debian"), None);
        // A disabled file has another ending, as apt has it.
        check(&[("sources.list.d/d.sources.disabled", text)], None, None);
    }

    #[test]
    fn reports_hosts_without_a_mirror() {
        check(&[], None, None);
        let ubuntu = "deb http://archive.test/ubuntu noble main";
        check(&[("sources.list", ubuntu)], None, None);
        let dir = etc_apt(&[("sources.list", ubuntu)]);
        let error = Mirrors::default().url(Archive::DebianSecurity, dir.path()).unwrap_err();
        assert!(error.to_string().contains("Set DMARIG_SECURITY_MIRROR"), "{error}");
    }

    #[test]
    fn prefers_the_users_mirrors() {
        let dir = etc_apt(&[("sources.list", "deb http://m.test/debian sid main")]);
        let set = |url: &str| Mirrors { debian: Some(url.to_owned()), security: None };
        let url = |url| set(url).url(Archive::Debian, dir.path());
        assert_eq!(url("https://mine.test/debian/").unwrap(), "https://mine.test/debian");
        assert_eq!(url("").unwrap(), "http://m.test/debian");
        assert!(matches!(url("mine.test/debian"), Err(Error::BadMirror { .. })));
        assert!(matches!(url("http://a b"), Err(Error::BadMirror { .. })));
    }
}
