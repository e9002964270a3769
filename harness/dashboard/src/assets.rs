//! The style and the script, as they are embedded.

/// All of the style.
pub(crate) const STYLE: &str = include_str!("../assets/site.css");
/// All of the script: nothing is lost without it but hovering, sorting and choosing.
pub(crate) const SCRIPT: &str = include_str!("../assets/site.js");
