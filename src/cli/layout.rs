//! Texts in columns of a terminal, measured as the terminal measures them.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text in exactly `width` columns: cut with an ellipsis, or filled with blanks.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let cut = cut(text, width);
    let gap = width.saturating_sub(cut.width());
    cut + &" ".repeat(gap)
}

/// The text in at most `width` columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut out = String::new();
    for sign in text.chars() {
        let wide = sign.width().unwrap_or(0);
        if wide > left {
            break;
        }
        left -= wide;
        out.push(sign);
    }
    let mut out = out.trim_end().to_owned();
    if width > 0 {
        out.push('\u{2026}');
    }
    out
}

/// The text in lines of at most `width` columns, broken between words where that can be.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = cut(word, width);
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// The length of the shortest beginnings that tell these ids apart, at least eight.
pub(crate) fn telling_length<'a>(ids: impl IntoIterator<Item = &'a str>) -> usize {
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    let shared = |one: &str, other: &str| {
        one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
    };
    let longest = ids
        .iter()
        .zip(ids.iter().skip(1))
        .filter(|(one, other)| one != other)
        .map(|(one, other)| shared(one, other))
        .max();
    longest.map_or(8, |length| length.saturating_add(1).max(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fill_their_column_and_no_more() {
        assert_eq!(fit("ab", 4), "ab  ");
        assert_eq!(fit("abcdef", 4), "abc\u{2026}");
        assert_eq!(fit("ab cdef", 4), "ab\u{2026} ");
        // Wide signs take two columns.
        assert_eq!(fit("\u{4e2d}\u{6587}\u{5b57}", 4), "\u{4e2d}\u{2026} ");
        assert_eq!((fit("abc", 0), cut("", 3)), (String::new(), String::new()));
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible", 5), ["inco\u{2026}"]);
        assert!(wrap(" ", 5).is_empty());
    }

    #[test]
    fn ids_are_as_short_as_they_can_be() {
        assert_eq!(telling_length([]), 8);
        assert_eq!(telling_length(["01ABCDEFGH1", "01ABCDEFGH2"]), 11);
        assert_eq!(telling_length(["01ABCDEFGH1", "01ABCDEFGH1", "9"]), 8);
    }
}
