/// Where a long build says how far it is, and asks whether to go on. Called from one thread.
pub trait Watch {
    /// A phase starts: `source`, `configure`, `compile`, `keep`.
    fn phase(&self, name: &'static str);
    /// So many files of the phase are made. `total` is how many there were the last time that all
    /// were made, where that is known.
    fn made(&self, files: u32, total: Option<u32>);
    /// Something worth a line.
    fn message(&self, text: &str);
    /// Whether to stop. Asked several times a second.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Says nothing and goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Watch for Quiet {
    fn phase(&self, _name: &'static str) {}
    fn made(&self, _files: u32, _total: Option<u32>) {}
    fn message(&self, _text: &str) {}
}
