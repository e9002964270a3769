//! How devices are mapped, by the kernel's own lines and, where it has none, by its command line.

use dmarig_viommu::Viommu;

use crate::{axes::Policy, log::LogFacts, text::shown, version::Version};

use super::{Mode, Power, boot::Boot, expected::asked_policy};

/// The first kernel with a line on the policy.
const TELLS_POLICY: Version = Version::new(5, 14, 0);

pub(super) fn translation_mode(
    viommu: &dyn Viommu,
    boot: &Boot,
    facts: &LogFacts,
    power: Power,
) -> Mode {
    // Older kernels have no line on the default domain either.
    let asked = asked_policy(viommu, boot, facts).filter(|_| power == Power::On);
    let by_words = facts.default_domain.is_none() && asked == Some(Policy::Passthrough);
    let default_domain = if by_words {
        Some("Passthrough".to_owned())
    } else {
        facts.default_domain.as_deref().map(shown)
    };
    Mode {
        chosen_by_user: boot.domain_by_user || by_words,
        policy_line: facts.policy.as_deref().map(shown),
        policy: match power {
            Power::Off => "none: the IOMMU is off".to_owned(),
            _ if default_domain.as_deref() == Some("Passthrough") => {
                "devices are mapped one to one and never unmapped, but for those that can't be"
                    .to_owned()
            }
            _ => policy(viommu, boot, facts, asked),
        },
        default_domain,
    }
}

fn policy(viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts, asked: Option<Policy>) -> String {
    let warned = !facts.warnings.is_empty();
    let by = if boot.policy_by_user { ", as the command line asks" } else { "" };
    match (facts.policy.as_deref(), warned) {
        (Some("strict"), _) => format!("strict{by}"),
        (Some("lazy"), true) => "strict: the policy line has lazy, but the kernel prints it before the driver turns batching off".to_owned(),
        (_, true) => "strict: the driver turned batching off because of caching mode".to_owned(),
        (Some("lazy"), false) => {
            format!("lazy{by}; the kernel prints the line before the driver decides, so only a group's type (`/sys/kernel/iommu_groups/*/type`) is certain")
        }
        (Some(other), false) => format!("{}{by}", shown(other)),
        (None, false) if boot.strict_option => viommu.advice().strict_by_option.to_owned(),
        (None, false) => without_line(boot.version(), asked),
    }
}

fn without_line(version: Option<Version>, asked: Option<Policy>) -> String {
    let none = format!("kernels before {TELLS_POLICY} have no line for it");
    match (version.map(|version| version < TELLS_POLICY), asked) {
        (Some(true), Some(Policy::Strict)) => format!("strict by the command line; {none}"),
        (Some(true), Some(Policy::Lazy)) => format!("lazy by the command line; {none}"),
        (Some(false), _) => "unknown: the log does not have its line".to_owned(),
        _ => format!("unknown: {none}"),
    }
}
