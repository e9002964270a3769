//! Whether the warning is as the table of expectations has it, when not all that decides it is in the log.

use dmarig_viommu::{Viommu, mode::Registers};

use crate::{
    axes::{Axes, Policy, ScalableMode, Toggle},
    expect::{Presence, Rule, decide, standard},
    log::{LogFacts, warning_spelling},
    version::Version,
};

use super::boot::Boot;

/// Kernels that stand for those whose version is unknown: each side of each border in the table.
const STAND_INS: [Version; 6] = [
    Version::new(5, 10, 200),
    Version::new(5, 12, 0),
    Version::new(5, 15, 0),
    Version::new(6, 1, 100),
    Version::new(6, 12, 0),
    Version::new(7, 3, 0),
];

/// What the table says of the warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// One thing, whatever is not known.
    Told { presence: Presence, rule: String, because: Option<String> },
    /// It depends on what the log does not tell: that.
    Depends(Vec<&'static str>),
}

/// What may be the case, as far as the log tells: each with what is not known where there is more
/// than one value.
#[derive(Debug, Clone)]
struct Situation {
    version: Open<Version>,
    caching_mode: Open<Toggle>,
    policy: Open<Policy>,
    scalable_mode: Open<ScalableMode>,
}

#[derive(Debug, Clone)]
struct Open<T> {
    values: Vec<T>,
    unknown: &'static str,
}

/// What is expected of the warning.
pub(super) fn warning(viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) -> Expected {
    let situation = Situation {
        version: version(boot, facts),
        caching_mode: caching_mode(viommu, facts),
        policy: policy(viommu, boot, facts),
        scalable_mode: scalable_mode(viommu, boot, facts),
    };
    let mut found = situation.outcomes();
    if found.len() == 1 {
        return found.remove(0);
    }
    // What would settle it if it were known; where no single thing would, all that is open.
    let open = situation.open();
    let settles = |(at, _): &&(usize, &'static str)| {
        situation.settled(*at).iter().any(|one| one.outcomes().len() == 1)
    };
    let settling: Vec<&'static str> = open.iter().filter(settles).map(|(_, what)| *what).collect();
    let all = || open.iter().map(|(_, what)| *what).collect();
    Expected::Depends(if settling.is_empty() { all() } else { settling })
}

impl<T: Copy> Open<T> {
    fn known(value: T) -> Self {
        Self { values: vec![value], unknown: "" }
    }

    fn each(&self) -> Vec<Self> {
        self.values.iter().map(|value| Self::known(*value)).collect()
    }
}

impl Situation {
    /// The different things that the table says.
    fn outcomes(&self) -> Vec<Expected> {
        let mut found: Vec<Expected> = Vec::new();
        for &version in &self.version.values {
            for &caching_mode in &self.caching_mode.values {
                for &policy in &self.policy.values {
                    for &scalable_mode in &self.scalable_mode.values {
                        let axes = Axes { caching_mode, policy, scalable_mode, ..Axes::default() };
                        let one = expected(&axes, version);
                        if !found.iter().any(|other| same(other, &one)) {
                            found.push(one);
                        }
                    }
                }
            }
        }
        found
    }

    /// What is not known, each by its place.
    fn open(&self) -> Vec<(usize, &'static str)> {
        let sizes = [
            (self.version.values.len(), self.version.unknown),
            (self.caching_mode.values.len(), self.caching_mode.unknown),
            (self.policy.values.len(), self.policy.unknown),
            (self.scalable_mode.values.len(), self.scalable_mode.unknown),
        ];
        let open = sizes.into_iter().enumerate().filter(|(_, (count, _))| *count > 1);
        open.map(|(at, (_, what))| (at, what)).collect()
    }

    /// This situation with each value of what stands at `place` for known.
    fn settled(&self, place: usize) -> Vec<Self> {
        let of = self.clone();
        match place {
            0 => of
                .version
                .each()
                .into_iter()
                .map(|version| Self { version, ..of.clone() })
                .collect(),
            1 => {
                let each = of.caching_mode.each().into_iter();
                each.map(|caching_mode| Self { caching_mode, ..of.clone() }).collect()
            }
            2 => of.policy.each().into_iter().map(|policy| Self { policy, ..of.clone() }).collect(),
            _ => {
                let each = of.scalable_mode.each().into_iter();
                each.map(|scalable_mode| Self { scalable_mode, ..of.clone() }).collect()
            }
        }
    }
}

fn same(one: &Expected, other: &Expected) -> bool {
    match (one, other) {
        (Expected::Told { presence: a, .. }, Expected::Told { presence: b, .. }) => a == b,
        _ => one == other,
    }
}

fn expected(axes: &Axes, version: Version) -> Expected {
    let rules: Vec<&Rule> =
        standard().iter().filter(|rule| rule.when.holds(axes, Some(version), None)).collect();
    match decide(&rules, |rule| rule.warning) {
        Some((_, Presence::Any)) | None => Expected::Depends(vec![
            "which of two ways this kernel takes, which differs from one stable kernel to the next",
        ]),
        Some((rule, presence)) => {
            Expected::Told { presence, rule: rule.name.clone(), because: rule.because.clone() }
        }
    }
}

fn version(boot: &Boot, facts: &LogFacts) -> Open<Version> {
    if let Some(version) = boot.kernel.as_ref().and_then(|kernel| kernel.version) {
        return Open::known(version);
    }
    // A spelling belongs to certain kernels.
    let said = facts.warnings.first().map_or("", |seen| seen.line.as_str());
    let spelling = warning_spelling(said);
    let fits = |version: &Version| spelling.is_none_or(|known| known.kernels.contains(*version));
    let values = STAND_INS.into_iter().filter(fits).collect();
    Open { values, unknown: "the kernel's version" }
}

fn caching_mode(viommu: &dyn Viommu, facts: &LogFacts) -> Open<Toggle> {
    let units = facts.units.values().filter_map(|unit| unit.cap);
    let on = units.clone().any(|cap| viommu.capabilities(Registers { cap, ecap: 0 }).caching_mode);
    match (on, units.count()) {
        // One such unit is enough for the kernel.
        (true, _) => Open::known(Toggle::On),
        (false, 1..) => Open::known(Toggle::Off),
        (false, 0) => Open {
            values: vec![Toggle::Off, Toggle::On],
            unknown: "caching mode: the lines with `cap` and `ecap` are not in the log",
        },
    }
}

/// The policy that was asked for.
pub(super) fn asked_policy(viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) -> Option<Policy> {
    let version = boot.kernel.as_ref().and_then(|kernel| kernel.version);
    if facts.default_domain.as_deref() == Some("Passthrough") {
        return Some(Policy::Passthrough);
    }
    match (&boot.command_line, facts.policy.as_deref()) {
        _ if boot.strict_option => Some(Policy::Strict),
        (_, Some("strict")) => Some(Policy::Strict),
        (Some(words), _) => Some(viommu.read_command_line(words, version).policy.into()),
        (None, Some("lazy")) => Some(Policy::Lazy),
        (None, _) => None,
    }
}

fn policy(viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) -> Open<Policy> {
    asked_policy(viommu, boot, facts).map_or_else(
        || Open {
            values: vec![Policy::Lazy, Policy::Strict, Policy::Passthrough],
            unknown: "the policy that was asked for: the kernel's command line is not in the log",
        },
        Open::known,
    )
}

fn scalable_mode(viommu: &dyn Viommu, boot: &Boot, facts: &LogFacts) -> Open<ScalableMode> {
    let offered = facts
        .units
        .values()
        .filter_map(|unit| Some(Registers { cap: unit.cap?, ecap: unit.ecap? }))
        .map(|registers| viommu.capabilities(registers).page_tables)
        // Scalable mode is used where every unit has it, first-stage tables likewise.
        .min();
    let words = boot.command_line.as_deref().unwrap_or_default();
    let requested = viommu.read_command_line(words, None).scalable_mode;
    match (offered.map(ScalableMode::from), requested) {
        (Some(ScalableMode::Off), _) | (_, Some(false)) => Open::known(ScalableMode::Off),
        _ if boot.scalable_off => Open::known(ScalableMode::Off),
        (Some(mode), Some(true)) => Open::known(mode),
        (Some(mode), None) if boot.scalable_option => Open::known(mode),
        (Some(mode), None) => Open {
            values: vec![ScalableMode::Off, mode],
            unknown: "whether scalable mode is on, which the kernel's configuration decides where its command line does not",
        },
        (None, _) => Open {
            values: vec![ScalableMode::Off, ScalableMode::SecondStage, ScalableMode::FirstStage],
            unknown: "scalable mode: the lines with `cap` and `ecap` are not in the log",
        },
    }
}
