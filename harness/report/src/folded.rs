//! Lines that fit a terminal.

/// Least room for words, however narrow the terminal says it is.
const LEAST: usize = 20;

/// Breaks a line where it is wider than `width` columns: between words, and within a word that has no
/// room on a line of its own, after a sign if it has one. Lines after the first begin with `indent`.
pub fn folded(line: &str, width: u16, indent: &str) -> String {
    let width = usize::from(width).max(indent.len() + LEAST);
    let own = line.len() - line.trim_start_matches(' ').len();
    let mut text = line[..own].to_owned();
    let mut used = own;
    let mut begun = false;
    for word in line[own..].split(' ') {
        let mut rest = word;
        // What has no room on a line of its own may as well begin on this one.
        let long = indent.len() + length(rest) > width && used + LEAST <= width;
        if begun && (long || used + 1 + length(rest) <= width) {
            text.push(' ');
            used += 1;
        } else if begun {
            used = next_line(&mut text, indent);
        }
        while used + length(rest) > width {
            let (head, tail) = rest.split_at(cut(rest, width - used));
            text.push_str(head);
            rest = tail;
            used = next_line(&mut text, indent);
        }
        text.push_str(rest);
        used += length(rest);
        begun = true;
    }
    text
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn next_line(text: &mut String, indent: &str) -> usize {
    text.push('\n');
    text.push_str(indent);
    length(indent)
}

/// Where a word that is longer than `room` is cut, in bytes.
fn cut(word: &str, room: usize) -> usize {
    let room = word.char_indices().nth(room.max(1)).map_or(word.len(), |(at, _)| at);
    let after = |signs: &[char]| word[..room].rfind(signs).map(|at| at + 1);
    after(&[',', '/']).or_else(|| after(&['=', '-'])).unwrap_or(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_and_no_word_is_lost() {
        let id =
            "prove/caching-mode=on,policy=lazy,device=virtio-blk,passthrough=probe,device-iotlb=on";
        let line = format!("  {} on {id}{id} \u{e4}{}", "word ".repeat(30), "\u{e4}".repeat(200));
        for width in [20, 40, 80, 200] {
            let text = folded(&line, width, "      ");
            let wide = text.lines().find(|line| length(line) > usize::from(width.max(26)));
            assert_eq!(wide, None, "{text}");
            let all = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(all(&text), all(&line));
        }
        assert_eq!(folded("  a b", 80, "   "), "  a b");
        assert_eq!(folded("", 80, "   "), "");
        let broken = folded(&format!("  on {id}"), 60, "    ");
        let first = broken.lines().next().unwrap();
        assert!(
            first.starts_with("  on prove/") && first.ends_with(",device=virtio-blk,"),
            "{broken}"
        );
    }
}
