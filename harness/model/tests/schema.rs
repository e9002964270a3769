//! The published schemas are those of the types, and accept what the parser accepts.
//! `DMARIG_BLESS=1` rewrites them.

use std::{fs, path::PathBuf};

use dmarig_model::{
    case::{Case, CaseFile, check_names},
    document::Document,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

fn testcases() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testcases")
}

fn schema<T: JsonSchema>(title: &str) -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), Value::from(title));
    schema.to_value()
}

#[track_caller]
fn check(name: &str, schema: &Value) {
    let path = testcases().join("schema").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
    if std::env::var_os("DMARIG_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &text).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == text,
        "{} is not the schema of the types: run DMARIG_BLESS=1 cargo test -p dmarig-model --test schema",
        path.display()
    );
}

#[test]
fn published_schemas_are_those_of_the_types() {
    check("case.schema.json", &schema::<CaseFile>("A case of dmarig"));
    check("result.schema.json", &schema::<Document>("The results of a run of dmarig"));
}

#[test]
fn shipped_cases_are_sound_and_fit_the_schema() {
    let schema = schema::<CaseFile>("A case of dmarig");
    let mut cases = Vec::new();
    for entry in fs::read_dir(testcases()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let modeline = "# yaml-language-server: $schema=schema/case.schema.json\n";
        assert!(text.starts_with(modeline), "{}", path.display());
        cases.push(
            Case::parse(&path.display().to_string(), &text).unwrap_or_else(|e| panic!("{e}")),
        );
        let options = serde_yaml::options! { strict_booleans: true };
        let value: Value = serde_yaml::from_str_with_options(&text, options).unwrap();
        fits(&schema, &schema, &value).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
    assert!(cases.len() >= 4, "{}", cases.len());
    check_names(&cases).unwrap();
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = schema::<CaseFile>("A case of dmarig");
    let sound = serde_json::json!({"case": "a", "workload": {"idle": {}}});
    fits(&schema, &schema, &sound).unwrap();
    for (key, value) in [
        ("bananas", serde_json::json!(1)),
        ("case", serde_json::json!("../a")),
        ("axes", serde_json::json!({"policy": "layz"})),
        ("axes", serde_json::json!({"policy": []})),
        ("axes", serde_json::json!({"policy": ["lazy", "lazy"]})),
        ("workload", serde_json::json!({"block": {"block-size": "64kb"}})),
        ("workload", serde_json::json!({"block": {"ops": 0}})),
    ] {
        let mut case = sound.clone();
        case[key] = value;
        assert!(fits(&schema, &schema, &case).is_err(), "{case}");
        let text = serde_json::to_string(&case).unwrap();
        assert!(Case::parse("a.yaml", &text).is_err(), "{case}");
    }
}

/// Whether `value` fits `schema`: the part of JSON Schema that our schemas use.
fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{value}: {what} ({schema})"));
    let Some(rules) = schema.as_object() else { return Ok(()) };
    for (rule, wanted) in rules {
        let list = || wanted.as_array().map(Vec::as_slice).unwrap_or_default();
        let count = || list().iter().filter(|one| fits(root, one, value).is_ok()).count();
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let kind = |name: &str| match name {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            _ => value.is_object(),
        };
        let ok = match rule.as_str() {
            "$ref" => {
                let pointer = wanted.as_str().unwrap().trim_start_matches('#');
                fits(root, root.pointer(pointer).unwrap(), value)?;
                true
            }
            "type" => match wanted {
                Value::String(name) => kind(name),
                _ => list().iter().filter_map(Value::as_str).any(kind),
            },
            "enum" => list().contains(value),
            "const" => wanted == value,
            "oneOf" => count() == 1,
            "anyOf" => count() > 0,
            "allOf" => count() == list().len(),
            "minimum" => !value.is_number() || number(value) >= number(wanted),
            "maximum" => !value.is_number() || number(value) <= number(wanted),
            "minItems" => value.as_array().is_none_or(|items| items.len() as f64 >= number(wanted)),
            "minProperties" => {
                value.as_object().is_none_or(|map| map.len() as f64 >= number(wanted))
            }
            "uniqueItems" => value
                .as_array()
                .is_none_or(|items| (1..items.len()).all(|i| !items[..i].contains(&items[i]))),
            "pattern" => value.as_str().is_none_or(|text| {
                regex::Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text)
            }),
            "required" => value
                .as_object()
                .is_none_or(|map| list().iter().all(|key| map.contains_key(key.as_str().unwrap()))),
            "items" => {
                value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .try_for_each(|item| fits(root, wanted, item))?;
                true
            }
            "additionalProperties" if *wanted == Value::Bool(false) => {
                let known = schema["properties"].as_object();
                value.as_object().is_none_or(|map| {
                    map.keys().all(|key| known.is_some_and(|k| k.contains_key(key)))
                })
            }
            "properties" => {
                for (key, item) in value.as_object().into_iter().flatten() {
                    wanted.get(key).map_or(Ok(()), |schema| fits(root, schema, item))?;
                }
                true
            }
            "$schema" | "title" | "description" | "default" | "definitions" | "format" => true,
            _ => return Err(format!("this test does not know `{rule}`")),
        };
        if !ok {
            return wrong(rule);
        }
    }
    Ok(())
}
