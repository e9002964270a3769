//! Debian's `Key: value` paragraphs: control files, apt's answers, .sources files.

/// The value of `key` in one paragraph, with its continuation lines (they are indented) joined by
/// a blank. Keys are compared without case.
pub(crate) fn field(lines: &[&str], key: &str) -> Option<String> {
    let at = lines
        .iter()
        .position(|line| line.split_once(':').is_some_and(|(k, _)| k.eq_ignore_ascii_case(key)))?;
    let mut value = lines[at].split_once(':')?.1.trim().to_owned();
    for line in lines[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t'])) {
        value.push(' ');
        value.push_str(line.trim());
    }
    Some(value.trim().to_owned())
}

/// The names in a `Depends:` value: the first of each alternative, without versions.
pub(crate) fn depends(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter_map(|item| {
        item.split(['|', '(', '[', ':']).next().map(str::trim).filter(|name| !name.is_empty())
    })
}

/// The source package and its version: `Source: name (version)`, where what is missing equals the
/// binary package's.
pub(crate) fn source(lines: &[&str], package: &str, version: &str) -> String {
    let value = field(lines, "Source").unwrap_or_else(|| package.to_owned());
    match value.split_once('(') {
        Some((name, rest)) => format!("{} {}", name.trim(), rest.trim_end_matches(')').trim()),
        None => format!("{value} {version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_dependencies() {
        let text =
            "Package: x\nSource: linux-signed (6.1+1)\nDepends: a (= 1), b | c,\n d:any\nSize: 5";
        let lines: Vec<_> = text.lines().collect();
        let value = field(&lines, "depends").unwrap();
        assert_eq!(depends(&value).collect::<Vec<_>>(), ["a", "b", "d"]);
        assert_eq!(field(&lines, "Size").as_deref(), Some("5"));
        assert_eq!(field(&lines, "Nothing"), None);
        assert_eq!(source(&lines, "x", "1"), "linux-signed 6.1+1");
        assert_eq!(source(&["Source: linux"], "x", "1"), "linux 1");
        assert_eq!(source(&[], "x", "1"), "x 1");
    }
}
