//! Writes the site that the tests are made of: `cargo run -p dmarig-dashboard --example site -- DIR
//! [hostile]`. The browser tests look at the hostile one.

use std::{fs, path::Path};

#[expect(dead_code, reason = "not all of it is for each of its users")]
#[path = "../tests/it/demo.rs"]
mod demo;

use demo::{Demo, SMALL};

/// Breaks out of every context that a page has, if anything is let through. It would leave its mark in
/// the window's name, and would ask a server for an image.
const HOSTILE: &str = "</script></title></style></textarea><script>window.name='broken'</script>\
    <!--\"' onmouseover=window.name='broken' <img src=broken.png onerror=window.name='broken'>\
    <svg onload=window.name='broken'> javascript:window.name='broken' \u{202e}evil\u{0}\u{1b}[31m";

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let directory = words.next().expect("a directory");
    let text = if words.next().as_deref() == Some("hostile") { HOSTILE } else { "" };
    let demo = Demo { text, ..SMALL };
    let written = demo.dashboard().write(|path, bytes| {
        let path = Path::new(&directory).join(path);
        fs::create_dir_all(path.parent().expect("it is below the directory"))?;
        fs::write(path, bytes)
    })?;
    println!("{} files, {} bytes", written.files, written.bytes);
    Ok(())
}
