/// Where a long fetch says how far it is. Calls come in pairs of `begin` and `end`, from one
/// thread at a time.
pub trait Progress: Sync {
    /// A step starts. `total` is in bytes, where it is known.
    fn begin(&self, what: &str, total: Option<u64>);
    /// This many more bytes of the step are done.
    fn advance(&self, bytes: u64);
    /// Something worth a line, inside a step or between two.
    fn message(&self, text: &str);
    /// The step that began last has ended, well or not.
    fn end(&self);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn message(&self, _text: &str) {}
    fn end(&self) {}
}

/// Runs `work` as one step, which ends however `work` does.
pub(crate) fn step<T>(
    progress: &dyn Progress,
    what: &str,
    total: Option<u64>,
    work: impl FnOnce() -> T,
) -> T {
    progress.begin(what, total);
    let result = work();
    progress.end();
    result
}
