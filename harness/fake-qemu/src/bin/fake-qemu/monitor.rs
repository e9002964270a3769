//! Its monitor: QMP over a stream.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    process::ExitCode,
};

use dmarig_fake_qemu::{QEMU_LAST_WORDS, QemuScript, VERSION};
use serde_json::{Value, json};

use crate::hang;

/// Properties of the virtual IOMMU, with their defaults.
pub(crate) fn iommu_defaults() -> BTreeMap<String, Value> {
    let defaults = [
        ("aw-bits", json!(39)),
        ("caching-mode", json!(false)),
        ("device-iotlb", json!(false)),
        ("intremap", json!("auto")),
        ("pt", json!(true)),
        ("x-scalable-mode", json!(false)),
    ];
    defaults.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn version(script: QemuScript) -> Value {
    let text = if script == QemuScript::IsOld { "5.2.0" } else { VERSION };
    let parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
    json!({"qemu": {"major": parts[0], "minor": parts[1], "micro": parts[2]}, "package": ""})
}

/// Answers commands until `quit` or the stream's end.
pub(crate) fn converse(
    script: QemuScript,
    input: impl Read,
    mut output: impl Write,
    mut answer: impl FnMut(&str, &Value) -> Value,
) -> io::Result<()> {
    let greeting = json!({"QMP": {"version": version(script), "capabilities": []}});
    writeln!(output, "{greeting}\r")?;
    for line in BufReader::new(input).lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let name = command["execute"].as_str().unwrap_or_default();
        writeln!(output, "{}\r", answer(name, &command["arguments"]))?;
        output.flush()?;
        if name == "quit" {
            break;
        }
    }
    Ok(())
}

/// What it says without a machine.
pub(crate) fn inspected(script: QemuScript) -> ExitCode {
    match script {
        QemuScript::DiesWhenAsked => {
            eprintln!("{QEMU_LAST_WORDS}");
            return ExitCode::FAILURE;
        }
        QemuScript::HangsWhenAsked => hang(),
        QemuScript::BabblesWhenAsked => {
            println!("SSH-2.0-OpenSSH_9.2p1");
            hang()
        }
        _ => {}
    }
    let conversation = converse(script, io::stdin(), io::stdout(), |name, arguments| {
        let answer = match name {
            "query-version" => version(script),
            // QEMU loads every module for this one, and may abort on one of them.
            "qom-list-types" => std::process::abort(),
            "qom-list-properties" => {
                let known = [
                    "nvme",
                    "virtio-blk-pci",
                    "e1000e",
                    "virtio-net-pci",
                    "vfio-user-pci",
                    "intel-iommu",
                    "tcg-accel",
                ];
                let name = arguments["typename"].as_str().unwrap_or_default();
                if !known.contains(&name) {
                    let desc = format!("Class '{name}' not found");
                    return json!({"error": {"class": "DeviceNotFound", "desc": desc}});
                }
                json!([{"name": "type", "type": "string"}])
            }
            "device-list-properties" => iommu_defaults()
                .into_iter()
                .map(|(name, value)| json!({"name": name, "type": "str", "default-value": value}))
                .collect(),
            "query-command-line-options" => json!([{"option": "sandbox", "parameters": []}]),
            _ => json!({}),
        };
        json!({"return": answer})
    });
    conversation.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
