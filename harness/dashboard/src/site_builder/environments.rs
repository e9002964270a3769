//! Machines and hypervisors, as the pages name them.

use std::collections::{BTreeMap, HashMap};

use dmarig_model::text::shown;
use dmarig_records::{Environment, HostFacts};

use crate::Environment as Told;

/// Digits of a hash that are told.
const DIGITS: usize = 12;

/// The environments of a history, each with an index.
pub(super) struct Environments {
    told: Vec<Told>,
    by_print: HashMap<String, usize>,
    by_facts: BTreeMap<Environment, usize>,
}

impl Environments {
    /// By their fingerprints.
    pub(super) fn new(all: impl IntoIterator<Item = (String, Environment)>) -> Self {
        let all: Vec<(String, Environment)> = all.into_iter().collect();
        let parts: Vec<Vec<(&str, String)>> = all.iter().map(|(_, one)| one.parts()).collect();
        let named = names(&parts);
        let told = all.iter().zip(&parts).zip(named).map(|(((key, _), of), name)| Told {
            key: key.clone(),
            name,
            facts: of
                .iter()
                .map(|(name, value)| ((*name).to_owned(), short(name, value)))
                .collect(),
        });
        Self {
            told: told.collect(),
            by_print: all.iter().enumerate().map(|(at, (print, _))| (print.clone(), at)).collect(),
            by_facts: all.into_iter().enumerate().map(|(at, (_, facts))| (facts, at)).collect(),
        }
    }

    /// All of them, by their indices.
    pub(super) fn told(&self) -> Vec<Told> {
        self.told.clone()
    }

    /// Of this fingerprint; the last index and one where there is none.
    pub(super) fn of_print(&self, print: &str) -> usize {
        self.by_print.get(print).copied().unwrap_or(self.told.len())
    }

    /// Of a cell; as [`Self::of_print`].
    pub(super) fn of(&self, facts: &Environment) -> usize {
        self.by_facts.get(facts).copied().unwrap_or(self.told.len())
    }
}

/// What tells a machine from others as far as a record says, whatever is installed on it: two that are
/// alike are told apart by their names alone.
pub(super) fn machine(host: &HostFacts) -> String {
    let memory = host.memory_gib();
    let name = if host.machine.is_empty() { String::new() } else { shown(&host.machine) + ": " };
    format!("{name}{}, {} CPUs, {memory} GiB", shown(&host.cpu), host.cpus)
}

/// As few words as tell environments from each other.
fn names(all: &[Vec<(&str, String)>]) -> Vec<String> {
    let differs =
        |at: usize| all.iter().any(|other| other.get(at) != all.first().and_then(|of| of.get(at)));
    let telling = ["cpu", "qemu", "accelerator"];
    let name = |of: &Vec<(&str, String)>, keep: &dyn Fn(&str) -> bool| {
        let told = of.iter().enumerate().filter(|(at, (name, value))| {
            !value.is_empty() && keep(name) && (telling.contains(name) || differs(*at))
        });
        let words: Vec<String> = told
            .map(|(_, (name, value))| match *name {
                // Of a version, what distributions add is not told.
                "qemu" => format!("QEMU {}", shown(value.split(' ').next().unwrap_or_default())),
                name if telling.contains(&name) => shown(value),
                name => format!("{name} {}", short(name, value)),
            })
            .collect();
        words.join(", ")
    };
    let few: Vec<String> = all.iter().map(|of| name(of, &|name| name != "qemu sha256")).collect();
    let alone = |name: &String| few.iter().filter(|other| *other == name).count() == 1;
    let all = all.iter().zip(&few);
    all.map(|(of, few)| if alone(few) { few.clone() } else { name(of, &|_| true) }).collect()
}

/// A value as it is told; of a hash its beginning.
fn short(name: &str, value: &str) -> String {
    match name {
        "qemu sha256" => shown(value).chars().take(DIGITS).collect(),
        _ => shown(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_have_names_of_their_own() {
        let of = |cpu: &str, host_kernel: &str, sha256: &str| Environment {
            cpu: cpu.into(),
            host_kernel: host_kernel.into(),
            qemu_version: "10.0.2 (Debian 1:10.0.2+ds-1)".into(),
            qemu_sha256: sha256.repeat(32),
            accelerator: "kvm".into(),
            ..Environment::default()
        };
        let check = |all: &[Environment], expected: &[&str]| {
            let all = Environments::new(all.iter().map(|one| (one.fingerprint(), one.clone())));
            let names: Vec<String> = all.told().into_iter().map(|one| one.name).collect();
            assert_eq!(names, expected);
        };
        check(&[of("EPYC", "6.1", "ab")], &["EPYC, QEMU 10.0.2, kvm"]);
        check(
            &[of("EPYC", "6.1", "ab"), of("Xeon", "6.2", "ab")],
            &["EPYC, host kernel 6.1, QEMU 10.0.2, kvm", "Xeon, host kernel 6.2, QEMU 10.0.2, kvm"],
        );
        // Two builds of one version.
        check(
            &[of("EPYC", "6.1", "ab"), of("EPYC", "6.1", "cd"), of("Xeon", "6.1", "ab")],
            &[
                "EPYC, QEMU 10.0.2, qemu sha256 abababababab, kvm",
                "EPYC, QEMU 10.0.2, qemu sha256 cdcdcdcdcdcd, kvm",
                "Xeon, QEMU 10.0.2, kvm",
            ],
        );
    }
}
