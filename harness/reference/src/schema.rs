//! The page of a case file's keys, from its JSON schema.

use std::{collections::VecDeque, fmt::Write};

use serde_json::{Map, Value};

const INTRODUCTION: &str = "\
# Case files

Keys of a case file, from its JSON schema (`dmarig schema case`). [Writing cases](../writing-cases.md) explains how
to use them. A key in bold is required.
";

/// A section for the file and for each type that it refers to, in the order of first use.
pub(crate) fn page(schema: &str) -> String {
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    let mut page = Page { text: INTRODUCTION.to_owned(), found: Vec::new(), next: VecDeque::new() };
    page.add_section("The file", &schema);
    while let Some(name) = page.next.pop_front() {
        let definition = &schema["definitions"][&name];
        page.add_section(&name, definition);
    }
    page.text
}

struct Page {
    text: String,
    /// Names of the types that have a section or are in `next`.
    found: Vec<String>,
    next: VecDeque<String>,
}

impl Page {
    fn add_section(&mut self, title: &str, definition: &Value) {
        self.add(format_args!("\n## {title}\n"));
        if let Some(description) = definition["description"].as_str() {
            self.add(format_args!("\n{}\n", sentence(description)));
        }
        if let Some(pattern) = definition["pattern"].as_str() {
            self.add(format_args!("\nPattern: `{pattern}`\n"));
        }
        if let Some(values) = definition["enum"].as_array() {
            self.add(format_args!("\nValues: {}\n", join(values.iter().map(code), ", ")));
        }
        if let Some(alternatives) = definition["oneOf"].as_array() {
            self.add_alternatives(alternatives);
        }
        if let Some(properties) = definition["properties"].as_object() {
            self.add_properties(properties, definition);
        }
    }

    fn add_alternatives(&mut self, alternatives: &[Value]) {
        if alternatives.iter().all(|alternative| alternative.get("const").is_some()) {
            self.text.push_str("\n| value | meaning |\n|---|---|\n");
            for alternative in alternatives {
                let meaning = alternative["description"].as_str().unwrap_or_default();
                self.add(format_args!("| {} | {} |\n", code(&alternative["const"]), cell(meaning)));
            }
            return;
        }
        let kinds: Vec<String> = alternatives.iter().map(|one| self.kind(one)).collect();
        self.add(format_args!("\nForms: {}\n", kinds.join("; ")));
    }

    fn add_properties(&mut self, properties: &Map<String, Value>, definition: &Value) {
        let required = definition["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.text.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
        for (name, property) in properties {
            let mut key = format!("`{name}`");
            if required.iter().any(|required| required == name) {
                key = format!("**{key}**");
            }
            let kind = cell(&self.kind(property));
            let default = match &property["default"] {
                Value::Null => String::new(),
                default => code(default),
            };
            let meaning = cell(property["description"].as_str().unwrap_or_default());
            self.add(format_args!("| {key} | {kind} | {default} | {meaning} |\n"));
        }
    }

    /// What a value looks like, in a few words. A type with a section of its own becomes a link.
    fn kind(&mut self, value: &Value) -> String {
        if let Some(path) = value["$ref"].as_str() {
            return self.link(path.rsplit('/').next().unwrap_or(path));
        }
        if let Some(constant) = value.get("const") {
            return code(constant);
        }
        if let Some(values) = value["enum"].as_array() {
            return join(values.iter().map(code), ", ");
        }
        for union in ["allOf", "anyOf", "oneOf"] {
            if let Some(members) = value[union].as_array() {
                let members = members.iter().filter(|member| member["type"] != "null");
                return join(members.map(|member| self.kind(member)), " or ");
            }
        }
        let names: Vec<&str> = match &value["type"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect(),
        };
        let names = names.into_iter().filter(|name| *name != "null");
        join(names.map(|name| self.typed(name, value)), " or ")
    }

    fn typed(&mut self, name: &str, value: &Value) -> String {
        match name {
            "array" => format!("list of {}", self.kind(&value["items"])),
            "object" => match value["properties"].as_object() {
                Some(properties) => format!(
                    "map of {}",
                    join(properties.keys().map(|key| format!("`{key}`")), ", ")
                ),
                None => match value.get("additionalProperties").filter(|values| values.is_object())
                {
                    Some(values) => format!("map to {}", self.kind(values)),
                    None => "map".to_owned(),
                },
            },
            "integer" | "number" => format!("{name}{}", range(value)),
            name => name.to_owned(),
        }
    }

    fn link(&mut self, name: &str) -> String {
        if !self.found.iter().any(|found| found == name) {
            self.found.push(name.to_owned());
            self.next.push_back(name.to_owned());
        }
        format!("[{name}](#{})", name.to_lowercase())
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes everything");
    }
}

fn range(value: &Value) -> String {
    match (&value["minimum"], &value["maximum"]) {
        (Value::Null, Value::Null) => String::new(),
        (minimum, Value::Null) => format!(" from {minimum}"),
        (Value::Null, maximum) => format!(" up to {maximum}"),
        (minimum, maximum) => format!(" {minimum} to {maximum}"),
    }
}

fn code(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => format!("`{text}`"),
        value => format!("`{value}`"),
    }
}

fn join(items: impl Iterator<Item = String>, separator: &str) -> String {
    items.collect::<Vec<_>>().join(separator)
}

/// A text that fits into a table's cell.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// A text on one line, with a full stop.
fn sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    if text.ends_with('.') { text } else { text + "." }
}
