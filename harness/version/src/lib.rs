//! The version of this build.

/// Version, with the source's revision and the date of its commit where they are known, as in
/// `0.1.0 (96247ab41c3d 2026-12-01)`.
pub const VERSION: &str = env!("DMARIG_VERSION");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_with_the_package_version() {
        let rest = VERSION.strip_prefix(env!("CARGO_PKG_VERSION")).unwrap();
        assert!(rest.is_empty() || rest.starts_with(" (") && rest.ends_with(')'), "{VERSION}");
    }
}
