//! QEMU's `intel-iommu` device.

use dmarig_viommu::{
    Properties,
    mode::{PageTables, ReportedMode, Settings},
    qemu::{QemuFacts, Unsupported},
};
use serde_json::Value;

pub(crate) const FACTS: QemuFacts = QemuFacts {
    device_type: "intel-iommu",
    proving_properties: &[
        "aw-bits",
        "caching-mode",
        "device-iotlb",
        "fsts",
        "pt",
        "scalable-mode",
        "x-flts",
        "x-scalable-mode",
    ],
    // Before 10.1, from 10.1 on, and for a device in another process, where QEMU ends only when the
    // guest turns translation on.
    passthrough_refusals: &[
        "We need to set caching-mode=on for intel-iommu to enable device assignment",
        "Device assignment is not allowed without enabling caching-mode=on",
        "requires caching mode",
    ],
};

/// Names of the property for scalable mode, by version.
const SCALABLE_MODE: &[&str] = &["scalable-mode", "x-scalable-mode"];
/// Names of the property for first-stage tables, by version.
const FIRST_STAGE: &[&str] = &["fsts", "x-flts"];

const fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

/// The name that this version gives to a property, or `None` if it does not have the property.
fn name_of(properties: &Properties, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| properties.contains_key(*name))
}

pub(crate) fn device(properties: &Properties, settings: &Settings) -> Result<String, Unsupported> {
    use Unsupported::{Conflict, Missing};
    if properties.is_empty() {
        return Err(Missing("an intel-iommu device"));
    }
    let mut device = String::from("intel-iommu,id=viommu,intremap=on");
    let mut set = |name: &str, value: &str| device.push_str(&format!(",{name}={value}"));
    set("caching-mode", on_off(settings.caching_mode));
    match name_of(properties, &["pt"]) {
        Some(name) => set(name, on_off(settings.pass_through)),
        None if settings.pass_through => {}
        None => return Err(Missing("the property intel-iommu.pt")),
    }
    let scalable_mode = name_of(properties, SCALABLE_MODE);
    let first_stage = name_of(properties, FIRST_STAGE);
    let mut address_bits = settings.address_bits;
    match (settings.page_tables, scalable_mode, first_stage) {
        (PageTables::Legacy, ..) => {}
        (_, None, _) => return Err(Missing("scalable mode")),
        (PageTables::SecondStage, Some(scalable_mode), first_stage) => {
            set(scalable_mode, "on");
            if let Some(first_stage) = first_stage {
                set(first_stage, "off");
            }
        }
        (PageTables::FirstStage, Some(_), None) => return Err(Missing("first-stage tables")),
        (PageTables::FirstStage, Some(scalable_mode), Some(first_stage)) => {
            set(scalable_mode, "on");
            set(first_stage, "on");
            // QEMU refuses first-stage tables of any other width.
            address_bits = address_bits.or(Some(48));
            if address_bits != Some(48) {
                return Err(Conflict("first-stage tables are 48 bits wide, not fewer"));
            }
        }
    }
    match name_of(properties, &["device-iotlb"]) {
        Some(name) if settings.device_iotlb => set(name, "on"),
        None if settings.device_iotlb => return Err(Missing("a device IOTLB")),
        _ => {}
    }
    match (name_of(properties, &["aw-bits"]), address_bits) {
        (Some(name), Some(bits)) => set(name, &bits.to_string()),
        (None, Some(_)) => return Err(Missing("the property intel-iommu.aw-bits")),
        (_, None) => {}
    }
    Ok(device)
}

pub(crate) fn reported_mode(properties: &Properties) -> Option<ReportedMode> {
    // Text, because QMP and HMP differ in how they give a boolean.
    let text = |names: &[&str]| {
        let value = names.iter().find_map(|name| properties.get(*name))?;
        Some(match value {
            Value::Bool(value) => on_off(*value).to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let off = || "off".to_owned();
    let caching_mode = text(&["caching-mode"])?;
    let scalable_mode = text(SCALABLE_MODE).unwrap_or_else(off) == "on";
    let first_stage = text(FIRST_STAGE).unwrap_or_else(off) == "on";
    Some(ReportedMode {
        caching_mode,
        // QEMU 11 no longer has `pt` and always offers it.
        pass_through: text(&["pt"]).unwrap_or_else(|| "on".to_owned()),
        device_iotlb: text(&["device-iotlb"]).unwrap_or_else(off),
        page_tables: match (scalable_mode, first_stage) {
            (false, _) => PageTables::Legacy,
            (true, false) => PageTables::SecondStage,
            (true, true) => PageTables::FirstStage,
        },
        address_bits: text(&["aw-bits"]),
    })
}

#[cfg(test)]
mod tests {
    use dmarig_viommu::mode::Policy;

    use super::*;

    const V7_2: &[&str] =
        &["caching-mode", "pt", "device-iotlb", "aw-bits", "x-scalable-mode", "intremap"];
    const V11_1: &[&str] =
        &["caching-mode", "device-iotlb", "aw-bits", "scalable-mode", "fsts", "intremap"];
    const COMMON: &str = "intel-iommu,id=viommu,intremap=on,caching-mode=off";
    const DEFAULT: Settings = Settings {
        caching_mode: false,
        pass_through: true,
        device_iotlb: false,
        page_tables: PageTables::Legacy,
        address_bits: None,
        policy: Policy::Lazy,
        single_pages: false,
    };

    fn device_of(names: &[&str], settings: Settings) -> Result<String, Unsupported> {
        let properties = names.iter().map(|name| ((*name).to_owned(), true.into())).collect();
        device(&properties, &settings)
    }

    #[test]
    fn gives_properties_the_names_of_their_version() {
        let second_stage = Settings { page_tables: PageTables::SecondStage, ..DEFAULT };
        let first_stage = Settings { page_tables: PageTables::FirstStage, ..DEFAULT };
        let narrow = Settings { address_bits: Some(39), ..DEFAULT };
        for (names, settings, rest) in [
            (V7_2, DEFAULT, ",pt=on"),
            (V7_2, second_stage, ",pt=on,x-scalable-mode=on"),
            (V7_2, narrow, ",pt=on,aw-bits=39"),
            (V11_1, DEFAULT, ""),
            (V11_1, second_stage, ",scalable-mode=on,fsts=off"),
            (V11_1, first_stage, ",scalable-mode=on,fsts=on,aw-bits=48"),
        ] {
            assert_eq!(device_of(names, settings), Ok(format!("{COMMON}{rest}")));
        }
    }

    #[test]
    fn reports_what_a_version_does_not_have() {
        let first_stage = Settings { page_tables: PageTables::FirstStage, ..DEFAULT };
        let no_pass_through = Settings { pass_through: false, ..DEFAULT };
        let narrow = Settings { address_bits: Some(39), ..first_stage };
        let wide = "first-stage tables are 48 bits wide, not fewer";
        for (names, settings, error) in [
            (V11_1, no_pass_through, Unsupported::Missing("the property intel-iommu.pt")),
            (V7_2, first_stage, Unsupported::Missing("first-stage tables")),
            (V11_1, narrow, Unsupported::Conflict(wide)),
            (&[], DEFAULT, Unsupported::Missing("an intel-iommu device")),
        ] {
            assert_eq!(device_of(names, settings), Err(error));
        }
    }
}
