/// Receives the progress of a long fetch or build, and can ask it to stop. Calls come in pairs of
/// `begin` and `end`, from one thread at a time.
pub trait Progress {
    /// A step starts. `total` is the expected amount in `unit`, where it is known.
    fn begin(&self, step: &str, unit: Unit, total: Option<u64>);
    /// The step has done `amount` more of its unit.
    fn advance(&self, amount: u64);
    /// Something worth a line, inside a step or between two.
    fn message(&self, text: &str);
    /// The step that began last has ended, successfully or not.
    fn end(&self);
    /// Whether to stop. A build asks several times a second, a fetch never.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// What the amounts of a step count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes that are downloaded or unpacked.
    Bytes,
    /// Files that `make` makes. The total is the highest count so far, so a step may end below it.
    Files,
}

/// Ignores all progress, and never stops anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _step: &str, _unit: Unit, _total: Option<u64>) {}
    fn advance(&self, _amount: u64) {}
    fn message(&self, _text: &str) {}
    fn end(&self) {}
}

/// Runs `work` as one step of bytes, which ends however `work` does.
pub(crate) fn step<T>(
    progress: &dyn Progress,
    name: &str,
    total: Option<u64>,
    work: impl FnOnce() -> T,
) -> T {
    progress.begin(name, Unit::Bytes, total);
    let result = work();
    progress.end();
    result
}
