//! The virtual IOMMUs that the harness knows, and their settings by axes.

use dmarig_viommu::{
    Viommu,
    mode::{PageTables, Policy as RequestedPolicy, Settings},
};
use dmarig_vtd::Vtd;
use dmarig_wire::LogRecord;

use crate::{
    axes::{Axes, Policy, ScalableMode, Toggle},
    text::message,
};

/// All of them. The first one is that of every cell, and that of a log in which no driver speaks.
pub static VIOMMUS: &[&dyn Viommu] = &[&Vtd];

/// The virtual IOMMU of a cell.
#[must_use]
pub fn for_axes(_: &Axes) -> &'static dyn Viommu {
    VIOMMUS[0]
}

/// The virtual IOMMU whose driver speaks in a kernel log.
pub(crate) fn in_log(records: &[LogRecord]) -> &'static dyn Viommu {
    let speaks = |viommu: &&&'static dyn Viommu| {
        records.iter().any(|record| {
            let text = message(&record.text);
            viommu.log_prefixes().iter().any(|prefix| text.starts_with(prefix))
        })
    };
    VIOMMUS.iter().find(speaks).copied().unwrap_or(VIOMMUS[0])
}

impl From<&Axes> for Settings {
    fn from(axes: &Axes) -> Self {
        Self {
            caching_mode: axes.caching_mode == Toggle::On,
            pass_through: axes.pt == Toggle::On,
            device_iotlb: axes.device_iotlb == Toggle::On,
            page_tables: axes.scalable_mode.into(),
            address_bits: axes.aw_bits,
            policy: match axes.policy {
                Policy::Lazy => RequestedPolicy::Lazy,
                Policy::Strict => RequestedPolicy::Strict,
                Policy::Passthrough => RequestedPolicy::Passthrough,
            },
            // Without superpages each page of a large buffer is a mapping of its own.
            single_pages: axes.live_mappings > 0,
        }
    }
}

impl From<RequestedPolicy> for Policy {
    fn from(policy: RequestedPolicy) -> Self {
        match policy {
            RequestedPolicy::Lazy => Self::Lazy,
            RequestedPolicy::Strict => Self::Strict,
            RequestedPolicy::Passthrough => Self::Passthrough,
        }
    }
}

impl From<ScalableMode> for PageTables {
    fn from(mode: ScalableMode) -> Self {
        match mode {
            ScalableMode::Off => Self::Legacy,
            ScalableMode::SecondStage => Self::SecondStage,
            ScalableMode::FirstStage => Self::FirstStage,
        }
    }
}

impl From<PageTables> for ScalableMode {
    fn from(tables: PageTables) -> Self {
        match tables {
            PageTables::Legacy => Self::Off,
            PageTables::SecondStage => Self::SecondStage,
            PageTables::FirstStage => Self::FirstStage,
        }
    }
}
