//! Reads a kernel's Kconfig files, to tell why an option did not survive. It understands as much of
//! the language as that takes: what it does not is taken for fulfilled.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Deeper than any kernel's files include each other.
const MAX_DEPTH: usize = 16;

/// What options depend on. An option that is defined at several places has several lists, one of
/// which must hold.
#[derive(Debug, Default)]
pub(crate) struct Kconfig {
    options: BTreeMap<String, Vec<Vec<String>>>,
}

/// A stretch of a file that a condition holds for, and what ends it.
struct Block {
    ends: &'static str,
    conditions: Vec<String>,
}

impl Kconfig {
    /// Reads the files of a source, from its root.
    pub(crate) fn read(root: &Path) -> Kconfig {
        let mut kconfig = Kconfig::default();
        kconfig.file(root, "Kconfig", &[], 0);
        kconfig
    }

    /// Why an option, without its `CONFIG_`, is not on in this configuration.
    pub(crate) fn why_not(&self, name: &str, config: &BTreeMap<String, String>) -> String {
        let Some(places) = self.options.get(name) else {
            return "this kernel has no such option".to_owned();
        };
        let missing = |conditions: &Vec<String>| -> Vec<String> {
            let unmet = conditions.iter().filter(|text| value(text, config) == 0);
            unmet.map(|text| explained(text, config)).collect()
        };
        match places.iter().map(missing).min_by_key(Vec::len) {
            Some(missing) if !missing.is_empty() => format!("needs {}", missing.join(" and ")),
            _ => "something else that was asked for decides it otherwise".to_owned(),
        }
    }

    fn file(&mut self, root: &Path, name: &str, outer: &[String], depth: usize) {
        let Ok(text) = fs::read_to_string(root.join(name)) else { return };
        let text = text.replace("\\\n", " ");
        let mut blocks: Vec<Block> = Vec::new();
        let mut option: Option<String> = None;
        let mut help_indent: Option<Option<usize>> = None;
        for line in text.lines() {
            let indent = line.len() - line.trim_start().len();
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // A help text ends where the indentation does.
            match help_indent {
                Some(None) => {
                    help_indent = (indent > 0).then_some(Some(indent));
                    if indent > 0 {
                        continue;
                    }
                }
                Some(Some(text)) if indent >= text => continue,
                _ => help_indent = None,
            }
            let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let rest = rest.split(" #").next().unwrap_or_default().trim();
            match word {
                "config" | "menuconfig" => {
                    let conditions = all(outer, &blocks);
                    self.options.entry(rest.to_owned()).or_default().push(conditions);
                    option = Some(rest.to_owned());
                }
                "choice" | "menu" | "if" => {
                    option = None;
                    let ends = match word {
                        "choice" => "endchoice",
                        "menu" => "endmenu",
                        _ => "endif",
                    };
                    let conditions = if word == "if" { vec![rest.to_owned()] } else { Vec::new() };
                    blocks.push(Block { ends, conditions });
                }
                "endchoice" | "endmenu" | "endif" => {
                    option = None;
                    if let Some(at) = blocks.iter().rposition(|block| block.ends == word) {
                        blocks.truncate(at);
                    }
                }
                "comment" | "mainmenu" => option = None,
                "source" if depth < MAX_DEPTH => {
                    option = None;
                    let path = rest.trim_matches('"').replace("$(SRCARCH)", "x86");
                    self.file(root, &path, &all(outer, &blocks), depth + 1);
                }
                "depends" => {
                    let condition = rest.strip_prefix("on").unwrap_or(rest).trim().to_owned();
                    match &option {
                        Some(name) => {
                            let places = self.options.get_mut(name).and_then(|all| all.last_mut());
                            places.into_iter().for_each(|place| place.push(condition.clone()));
                        }
                        None => blocks
                            .last_mut()
                            .into_iter()
                            .for_each(|block| block.conditions.push(condition.clone())),
                    }
                }
                "help" | "---help---" => help_indent = Some(None),
                _ => {}
            }
        }
    }
}

fn all(outer: &[String], blocks: &[Block]) -> Vec<String> {
    let inner = blocks.iter().flat_map(|block| &block.conditions);
    outer.iter().chain(inner).cloned().collect()
}

/// A condition with the values of what it speaks of, as in `NET_CORE (n) && PCI (y)`.
fn explained(condition: &str, config: &BTreeMap<String, String>) -> String {
    let known: Vec<String> = tokens(condition)
        .into_iter()
        .filter(|token| is_symbol(token) && !matches!(token.as_str(), "y" | "m" | "n"))
        .map(|name| format!("{name}={}", text_value(&name, config)))
        .collect();
    format!("`{condition}` (here {})", known.join(", "))
}

fn is_symbol(token: &str) -> bool {
    token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !token.is_empty()
}

fn text_value<'a>(name: &str, config: &'a BTreeMap<String, String>) -> &'a str {
    config.get(&format!("CONFIG_{name}")).map_or("n", String::as_str)
}

fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => rest[1..].find(first).map_or(rest.len(), |at| at + 2),
            // A macro, with what is between its brackets.
            '$' => {
                let mut open = 0;
                let end = rest.char_indices().find(|(_, c)| {
                    open += i32::from(*c == '(') - i32::from(*c == ')');
                    *c == ')' && open == 0
                });
                end.map_or(rest.len(), |(at, _)| at + 1)
            }
            _ => ["&&", "||", "!=", "<=", ">="]
                .iter()
                .find(|sign| rest.starts_with(**sign))
                .map(|sign| sign.len())
                .unwrap_or_else(|| {
                    match rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                        Some(0) => first.len_utf8(),
                        Some(at) => at,
                        None => rest.len(),
                    }
                }),
        };
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    found
}

/// The value of a condition: 0 for no, 1 for module, 2 for yes.
fn value(condition: &str, config: &BTreeMap<String, String>) -> u8 {
    let tokens = tokens(condition);
    let mut at = 0;
    either(&tokens, &mut at, config)
}

fn either(tokens: &[String], at: &mut usize, config: &BTreeMap<String, String>) -> u8 {
    let mut found = both(tokens, at, config);
    while tokens.get(*at).is_some_and(|token| token == "||") {
        *at += 1;
        found = found.max(both(tokens, at, config));
    }
    found
}

fn both(tokens: &[String], at: &mut usize, config: &BTreeMap<String, String>) -> u8 {
    let mut found = one(tokens, at, config);
    while tokens.get(*at).is_some_and(|token| token == "&&") {
        *at += 1;
        found = found.min(one(tokens, at, config));
    }
    found
}

fn one(tokens: &[String], at: &mut usize, config: &BTreeMap<String, String>) -> u8 {
    let Some(token) = tokens.get(*at) else { return 2 };
    *at += 1;
    match token.as_str() {
        "!" => 2 - one(tokens, at, config),
        "(" => {
            let inner = either(tokens, at, config);
            *at += usize::from(tokens.get(*at).is_some_and(|token| token == ")"));
            inner
        }
        token => {
            let text = |token: &str| match token {
                "y" | "m" | "n" => token.to_owned(),
                token if is_symbol(token) => text_value(token, config).to_owned(),
                token => token.trim_matches(['"', '\'']).to_owned(),
            };
            let sign = tokens.get(*at).map(String::as_str);
            if let (Some(sign @ ("=" | "!=" | "<" | ">" | "<=" | ">=")), Some(other)) =
                (sign, tokens.get(*at + 1))
            {
                *at += 2;
                let same = text(token) == text(other);
                return match sign {
                    "=" => u8::from(same) * 2,
                    "!=" => u8::from(!same) * 2,
                    // Numbers are not compared.
                    _ => 2,
                };
            }
            match text(token).as_str() {
                "n" => 0,
                "m" => 1,
                _ => 2,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_value(condition: &str, expected: u8) {
        let config = [("CONFIG_A", "y"), ("CONFIG_M", "m"), ("CONFIG_S", "\"s\"")];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(value(condition, &config), expected, "{condition}");
    }

    #[test]
    fn conditions_have_three_values() {
        check_value("A", 2);
        check_value("B", 0);
        check_value("A && M", 1);
        check_value("!M || B", 1);
        check_value("A && (B || !C)", 2);
        check_value("A=y && !B", 2);
        check_value("A != y", 0);
        check_value("M=n || A", 2);
        check_value("$(cc-option,-mx (y)) && A", 2);
        check_value("GCC_VERSION >= 50000", 2);
        check_value("", 2);
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "Kconfig",
            "source \"arch/$(SRCARCH)/Kconfig\"\nif OUTER\nsource \"sub/Kconfig\"\nendif\n",
        );
        write(
            "arch/x86/Kconfig",
            "config X86\n\tdef_bool y\n\thelp\n\t  depends on nothing\n\nconfig B\n\tbool \"b\"\n",
        );
        write(
            "sub/Kconfig",
            "menu \"m\"\n\tdepends on X86\nconfig A\n\ttristate \"a\"\n\tdepends on B && \\\n\t\tX86\n\tselect C\n\
             config D\n\tbool\nendmenu\nconfig E\n\tbool\n",
        );
        let kconfig = Kconfig::read(dir.path());
        let config = settings(&["X86"]);
        assert_eq!(kconfig.why_not("NONE", &config), "this kernel has no such option");
        let why = kconfig.why_not("A", &config);
        assert!(why.starts_with("needs `OUTER` (here OUTER=n) and `B &&"), "{why}");
        assert!(why.contains("B=n, X86=y"), "{why}");
        assert_eq!(kconfig.why_not("D", &settings(&["OUTER"])), "needs `X86` (here X86=n)");
        assert!(kconfig.why_not("E", &settings(&["OUTER"])).contains("something else"));
    }

    fn settings(on: &[&str]) -> BTreeMap<String, String> {
        on.iter().map(|name| (format!("CONFIG_{name}"), "y".to_owned())).collect()
    }
}
