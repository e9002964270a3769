//! Reads a kernel's Kconfig files, to tell why an option came out otherwise than it was asked for.
//! It understands as much of the language as that takes: what it does not is taken for fulfilled.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Deeper than any kernel's files include each other.
const MAX_DEPTH: usize = 16;
/// So many options are named that select another; of some there are hundreds.
const MAX_NAMED: usize = 5;

/// What options depend on, and what selects them.
#[derive(Debug, Default)]
pub(crate) struct Kconfig {
    /// An option that is defined at several places has several, one of which must hold.
    options: BTreeMap<String, Vec<Place>>,
    /// What selects an option, by its name.
    selects: BTreeMap<String, Vec<Select>>,
    choices: usize,
}

/// One definition of an option.
#[derive(Debug, Default)]
struct Place {
    scope: Scope,
    /// `bool` or `tristate`, say; empty where another place says it.
    kind: String,
    /// What the option may be asked for under; without one it can't be asked for here.
    prompt: Option<String>,
    defaults: Vec<String>,
}

/// What holds for all of a block.
#[derive(Clone, Debug, Default)]
struct Scope {
    /// What the options depend on.
    conditions: Vec<String>,
    /// What they may be asked for under.
    visible: Vec<String>,
    /// The choice that they are of, by its number.
    choice: Option<usize>,
}

/// Something that turns an option on where it is on itself and its condition holds.
#[derive(Debug)]
struct Select {
    by: String,
    condition: String,
}

/// A stretch of a file that a condition holds for, and what ends it.
struct Block {
    ends: &'static str,
    scope: Scope,
}

/// What the lines of a file are about.
enum Entry {
    Option(String),
    /// The innermost block.
    Block,
    /// Something that no option depends on, such as a comment.
    Other,
}

impl Kconfig {
    /// Reads the files of a source, from its root.
    pub(crate) fn read(root: &Path) -> Kconfig {
        let mut kconfig = Kconfig::default();
        kconfig.file(root, "Kconfig", &Scope::default(), 0);
        kconfig
    }

    /// Why an option, without its `CONFIG_`, is not `wanted` in this configuration.
    pub(crate) fn why_not(
        &self,
        name: &str,
        wanted: &str,
        config: &BTreeMap<String, String>,
    ) -> String {
        let Some(places) = self.options.get(name) else {
            return "this kernel has no such option".to_owned();
        };
        let came_out = text_value(name, config);
        if wanted == "n" || (wanted == "m" && came_out == "y") {
            return self.why_on(name, places, config);
        }
        let kind = kind(places);
        if wanted == "m" && kind == "bool" {
            return "it is built in or not at all: y or n".to_owned();
        }
        // Of a bool, a dependency that is a module is enough.
        let enough = if wanted == "y" && kind == "tristate" { 2 } else { 1 };
        let askable: Vec<&Place> = places.iter().filter(|place| place.prompt.is_some()).collect();
        let depends = |place: &Place| unmet(&place.scope.conditions, enough, config);
        if askable.is_empty() {
            let needs = places.iter().map(depends).min_by_key(Vec::len).unwrap_or_default();
            let needs = match needs.is_empty() {
                true => String::new(),
                false => format!("; it needs {}", needs.join(" and ")),
            };
            return format!(
                "it can't be asked for, having no prompt: {}{needs}",
                self.set_by(name, config)
            );
        }
        let missing = |place: &&Place| {
            let asked = place.prompt.iter().chain(&place.scope.visible);
            (depends(place), unmet(asked, enough, config))
        };
        let fewest = askable.iter().map(missing).min_by_key(|(a, b)| (a.len() + b.len(), b.len()));
        let (depends, asked) = fewest.unwrap_or_default();
        let mut reasons = Vec::new();
        if !depends.is_empty() {
            reasons.push(format!("needs {}", depends.join(" and ")));
        }
        if !asked.is_empty() {
            reasons.push(format!("can be asked for only under {}", asked.join(" and ")));
        }
        if !reasons.is_empty() {
            return reasons.join(", and ");
        }
        if wanted == "m" && text_value("MODULES", config) == "n" {
            return "needs `MODULES` (here MODULES=n)".to_owned();
        }
        let taken = self.of_choice(name, places).find(|other| text_value(other, config) != "n");
        match taken {
            Some(taken) => format!("it is one of a choice, of which {taken} is taken"),
            None => format!(
                "something else that was asked for decides it otherwise (here {name}={came_out})"
            ),
        }
    }

    /// Why an option is on that should not be.
    fn why_on(&self, name: &str, places: &[Place], config: &BTreeMap<String, String>) -> String {
        let all = self.selects.get(name).map_or(&[][..], Vec::as_slice);
        let active = all.iter().filter(|select| {
            text_value(&select.by, config) != "n" && evaluate(&select.condition, config) > 0
        });
        let by: Vec<&str> = active.map(|select| select.by.as_str()).collect();
        if !by.is_empty() {
            return format!("selected by {}", list_names(&by));
        }
        let others: Vec<&str> = self.of_choice(name, places).collect();
        if !others.is_empty() {
            return format!(
                "it is what is taken of a choice: ask for {} instead",
                list_names(&others)
            );
        }
        let askable = |place: &&Place| place.prompt.is_some();
        let asked = places
            .iter()
            .filter(askable)
            .map(|place| unmet(place.prompt.iter().chain(&place.scope.visible), 1, config));
        match asked.min_by_key(Vec::len) {
            None => format!("it has no prompt: {}", self.set_by(name, config)),
            Some(unmet) if unmet.is_empty() => "another option turns it on".to_owned(),
            Some(unmet) => format!(
                "its default turns it on; it can be turned off only under {}",
                unmet.join(" and ")
            ),
        }
    }

    /// What gives an option its value that can't be asked for.
    fn set_by(&self, name: &str, config: &BTreeMap<String, String>) -> String {
        let selects = self.selects.get(name).into_iter().flatten();
        let mut by: Vec<&str> = selects.map(|select| select.by.as_str()).collect();
        // Those first that this configuration lacks the least for: others may be another machine's.
        by.sort_by_cached_key(|name| {
            let places = self.options.get(*name).into_iter().flatten();
            places.map(|place| unmet(&place.scope.conditions, 1, config).len()).min()
        });
        let defaults = self.options.get(name).into_iter().flatten();
        let defaults: Vec<&str> =
            defaults.flat_map(|place| &place.defaults).map(String::as_str).collect();
        let mut ways = Vec::new();
        if !by.is_empty() {
            ways.push(format!("it is selected by {}", list_names(&by)));
        }
        if !defaults.is_empty() {
            ways.push(format!("its default is `{}`", defaults.join("`, else `")));
        }
        if ways.is_empty() { "nothing selects it".to_owned() } else { ways.join(", and ") }
    }

    /// The other options of the choice that an option is of.
    fn of_choice<'a>(&'a self, name: &'a str, places: &[Place]) -> impl Iterator<Item = &'a str> {
        let choice = places.iter().find_map(|place| place.scope.choice);
        let of_it = move |places: &[Place]| {
            choice.is_some() && places.iter().any(|place| place.scope.choice == choice)
        };
        let others = self
            .options
            .iter()
            .filter(move |(other, places)| other.as_str() != name && of_it(places));
        others.map(|(other, _)| other.as_str())
    }

    fn file(&mut self, root: &Path, name: &str, outer: &Scope, depth: usize) {
        let Ok(text) = fs::read_to_string(root.join(name)) else { return };
        let text = text.replace("\\\n", " ");
        let mut blocks: Vec<Block> = Vec::new();
        let mut entry = Entry::Other;
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
                    let place = Place { scope: scope(outer, &blocks), ..Place::default() };
                    self.options.entry(rest.to_owned()).or_default().push(place);
                    entry = Entry::Option(rest.to_owned());
                }
                "choice" | "menu" | "if" => {
                    let mut scope = Scope::default();
                    let ends = match word {
                        "choice" => {
                            self.choices += 1;
                            scope.choice = Some(self.choices);
                            "endchoice"
                        }
                        "menu" => "endmenu",
                        _ => {
                            scope.conditions.push(rest.to_owned());
                            "endif"
                        }
                    };
                    blocks.push(Block { ends, scope });
                    entry = Entry::Block;
                }
                "endchoice" | "endmenu" | "endif" => {
                    entry = Entry::Other;
                    if let Some(at) = blocks.iter().rposition(|block| block.ends == word) {
                        blocks.truncate(at);
                    }
                }
                "comment" | "mainmenu" => entry = Entry::Other,
                "source" if depth < MAX_DEPTH => {
                    entry = Entry::Other;
                    let path = rest.trim_matches('"').replace("$(SRCARCH)", "x86");
                    self.file(root, &path, &scope(outer, &blocks), depth + 1);
                }
                "help" | "---help---" => help_indent = Some(None),
                _ => match &entry {
                    Entry::Option(name) => self.property(name, word, rest),
                    Entry::Block => {
                        if let Some(block) = blocks.last_mut() {
                            block.scope.property(word, rest);
                        }
                    }
                    Entry::Other => {}
                },
            }
        }
    }

    /// A line of an option's definition.
    fn property(&mut self, name: &str, word: &str, rest: &str) {
        if word == "select" {
            let (selected, condition) = conditional(rest);
            let select = Select { by: name.to_owned(), condition: condition.to_owned() };
            self.selects.entry(selected.to_owned()).or_default().push(select);
            return;
        }
        let Some(place) = self.options.get_mut(name).and_then(|places| places.last_mut()) else {
            return;
        };
        match word {
            "bool" | "tristate" | "int" | "hex" | "string" => {
                place.kind = word.to_owned();
                if !rest.is_empty() {
                    place.prompt = Some(prompt_condition(rest));
                }
            }
            "prompt" => place.prompt = Some(prompt_condition(rest)),
            "def_bool" | "def_tristate" => {
                place.kind = word.trim_start_matches("def_").to_owned();
                place.defaults.push(rest.to_owned());
            }
            "default" => place.defaults.push(rest.to_owned()),
            _ => place.scope.property(word, rest),
        }
    }
}

impl Scope {
    /// A line of a block, or one that means the same of a single option.
    fn property(&mut self, word: &str, rest: &str) {
        match word {
            "depends" => {
                let (condition, only_if) = conditional(rest.strip_prefix("on").unwrap_or(rest));
                self.conditions.push(match only_if {
                    "" => condition.to_owned(),
                    only_if => format!("!({only_if}) || ({condition})"),
                });
            }
            "visible" => {
                self.visible.push(rest.strip_prefix("if").unwrap_or(rest).trim().to_owned());
            }
            // Of a choice: where it isn't asked about, none of its options is.
            "prompt" | "bool" | "tristate" if !rest.is_empty() => {
                self.visible.push(prompt_condition(rest));
            }
            _ => {}
        }
    }
}

/// What holds within blocks.
fn scope(outer: &Scope, blocks: &[Block]) -> Scope {
    let mut all = outer.clone();
    for Block { scope, .. } in blocks {
        all.conditions.extend_from_slice(&scope.conditions);
        all.visible.extend_from_slice(&scope.visible);
        all.choice = scope.choice.or(all.choice);
    }
    all
}

/// `X if Y` as its parts; the second is empty where there is none.
fn conditional(text: &str) -> (&str, &str) {
    let (what, condition) = text.split_once(" if ").unwrap_or((text, ""));
    (what.trim(), condition.trim())
}

/// The condition of `"a prompt" if X`; empty, which always holds, where there is none.
fn prompt_condition(text: &str) -> String {
    let after = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => text[1..].split_once(quote).map_or("", |(_, after)| after),
        _ => text,
    };
    after.trim().strip_prefix("if ").unwrap_or_default().trim().to_owned()
}

/// `bool` or `tristate`, say, from whichever place says it.
fn kind(places: &[Place]) -> &str {
    places.iter().map(|place| place.kind.as_str()).find(|kind| !kind.is_empty()).unwrap_or("bool")
}

/// The conditions that don't come to what is enough, explained.
fn unmet<'a>(
    conditions: impl IntoIterator<Item = &'a String>,
    enough: u8,
    config: &BTreeMap<String, String>,
) -> Vec<String> {
    let unmet = conditions.into_iter().filter_map(|text| match evaluate(text, config) {
        found if found >= enough => None,
        0 => Some(explain_condition(text, config)),
        _ => Some(format!("{} as y, not only as m", explain_condition(text, config))),
    });
    let mut all: Vec<String> = unmet.collect();
    // A block and what is in it may say the same.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|text| seen.insert(text.clone()));
    all
}

/// Names in a sentence.
fn list_names(all: &[&str]) -> String {
    let shown = all[..all.len().min(MAX_NAMED)].join(", ");
    match all.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A condition with the values of what it speaks of, as in `NET_CORE (n) && PCI (y)`.
fn explain_condition(condition: &str, config: &BTreeMap<String, String>) -> String {
    let known: Vec<String> = tokens(condition)
        .into_iter()
        .filter(|token| is_symbol(token) && !matches!(token.as_str(), "y" | "m" | "n"))
        .map(|name| format!("{name}={}", text_value(&name, config)))
        .collect();
    // It may have stood on several lines.
    let condition = condition.split_whitespace().collect::<Vec<_>>().join(" ");
    match known.is_empty() {
        true => format!("`{condition}`"),
        false => format!("`{condition}` (here {})", known.join(", ")),
    }
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
fn evaluate(condition: &str, config: &BTreeMap<String, String>) -> u8 {
    let tokens = tokens(condition);
    let mut at = 0;
    evaluate_or(&tokens, &mut at, config)
}

fn evaluate_or(tokens: &[String], at: &mut usize, config: &BTreeMap<String, String>) -> u8 {
    let mut found = evaluate_and(tokens, at, config);
    while tokens.get(*at).is_some_and(|token| token == "||") {
        *at += 1;
        found = found.max(evaluate_and(tokens, at, config));
    }
    found
}

fn evaluate_and(tokens: &[String], at: &mut usize, config: &BTreeMap<String, String>) -> u8 {
    let mut found = evaluate_operand(tokens, at, config);
    while tokens.get(*at).is_some_and(|token| token == "&&") {
        *at += 1;
        found = found.min(evaluate_operand(tokens, at, config));
    }
    found
}

fn evaluate_operand(tokens: &[String], at: &mut usize, config: &BTreeMap<String, String>) -> u8 {
    let Some(token) = tokens.get(*at) else { return 2 };
    *at += 1;
    match token.as_str() {
        "!" => 2 - evaluate_operand(tokens, at, config),
        "(" => {
            let inner = evaluate_or(tokens, at, config);
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
mod tests;
