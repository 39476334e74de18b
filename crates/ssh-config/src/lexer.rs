//! Cuts a line into keyword, words and the raw rest, with the two kinds of quoting that `ssh` has.

/// What separates words for the keyword and for `Match`.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// In lower case.
    pub keyword: String,
    /// Everything after the keyword and its `=`, as written; never empty.
    pub rest: &'a str,
}

/// Why a line says nothing sensible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoArgument {
    pub keyword: String,
}

/// The keyword and the rest; `None` for an empty line or a comment.
pub(super) fn line(text: &str) -> Result<Option<Line<'_>>, NoArgument> {
    let text = text.trim_end_matches([' ', '\t', '\r', '\n', '\u{c}']);
    let mut cursor = Cursor::new(text);
    let mut keyword = cursor.next_word();
    if keyword.as_deref() == Some("") {
        keyword = cursor.next_word();
    }
    let Some(mut keyword) = keyword else {
        return Ok(None);
    };
    if keyword.is_empty() || keyword.starts_with('#') {
        return Ok(None);
    }
    keyword.make_ascii_lowercase();
    let rest = cursor.rest.unwrap_or_default().trim_start_matches(BLANK);
    if rest.is_empty() {
        return Err(NoArgument { keyword });
    }
    Ok(Some(Line { keyword, rest }))
}

/// The older way of cutting: at blanks or one `=`; only `"` quotes, and a closing quote ends the word.
/// `Match` and the keyword itself are still read so.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    /// What is left; `None` once the text is used up.
    pub rest: Option<&'a str>,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: Some(text) }
    }

    /// The next word; `None` at the end or where a quote stays open.
    pub fn next_word(&mut self) -> Option<String> {
        let text = self.rest?;
        let Some(at) = text.find([' ', '\t', '\r', '\n', '"', '=']) else {
            self.rest = None;
            return Some(text.to_string());
        };
        let (before, after) = (&text[..at], &text[at + 1..]);
        if text[at..].starts_with('"') {
            let Some(close) = after.find('"') else {
                self.rest = None;
                return None;
            };
            self.rest = Some(after[close + 1..].trim_start_matches(BLANK));
            return Some(format!("{before}{}", &after[..close]));
        }
        let mut rest = after.trim_start_matches(BLANK);
        if !text[at..].starts_with('=')
            && let Some(behind) = rest.strip_prefix('=')
        {
            rest = behind.trim_start_matches(BLANK);
        }
        self.rest = Some(rest);
        Some(before.to_string())
    }
}

/// A quote that never closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenQuote;

/// The newer way of cutting, for the arguments of all other options: at blanks, `"` and `'` quote, a backslash
/// escapes quotes and itself (and a space outside quotes), and a word that begins with `#` ends the line.
pub(super) fn words(text: &str) -> Result<Vec<String>, OpenQuote> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        match characters.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => {}
        }
        let mut word = String::new();
        let mut quote: Option<char> = None;
        while let Some(character) = characters.next() {
            match (character, quote) {
                ('\\', _) => {
                    let escaped = characters.next_if(|next| {
                        matches!(next, '\'' | '"' | '\\') || (quote.is_none() && *next == ' ')
                    });
                    word.push(escaped.unwrap_or('\\'));
                }
                (' ' | '\t', None) => break,
                ('"' | '\'', None) => quote = Some(character),
                (_, Some(open)) if open == character => quote = None,
                _ => word.push(character),
            }
        }
        if quote.is_some() {
            return Err(OpenQuote);
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str) -> (String, String) {
        let line = line(text).unwrap().unwrap();
        (line.keyword, line.rest.to_string())
    }

    #[test]
    fn keyword_and_rest_are_parted_by_blanks_or_one_equals_sign() {
        let expected = ("port".to_string(), "22".to_string());
        for text in [
            "Port 22",
            "port=22",
            "PORT = 22",
            "  Port\t=  22  ",
            "\"Port\" 22",
            "Port 22\r\n",
            "Port 22\u{c}",
        ] {
            assert_eq!(cut(text), expected, "{text:?}");
        }
        assert_eq!(cut("Port == 22").1, "= 22");
    }

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        for text in ["", "\n", "   \r\n", "# Port 22", "  #x", "\u{c}"] {
            assert_eq!(line(text), Ok(None), "{text:?}");
        }
        assert!(line("Port").is_err() && line("Port =").is_err());
    }

    #[test]
    fn words_know_quotes_escapes_and_trailing_comments() {
        let all = |text| words(text).unwrap();
        assert_eq!(all("a \"b c\" 'd e'"), ["a", "b c", "d e"]);
        assert_eq!(
            all(r#"a\ b \"c\" \n "x\ y" "q\"r""#),
            ["a b", "\"c\"", "\\n", "x\\ y", "q\"r"]
        );
        assert_eq!(all("a#b # c"), ["a#b"]);
        assert_eq!(all("a\"b\"c \"\""), ["abc", ""]);
        assert_eq!(words("a \"b"), Err(OpenQuote));
    }

    #[test]
    fn the_older_cut_ends_a_word_at_its_closing_quote() {
        let mut cursor = Cursor::new("exec \"a b\"c host=x");
        let mut found = Vec::new();
        while let Some(word) = cursor.next_word() {
            found.push(word);
        }
        assert_eq!(found, ["exec", "a b", "c", "host", "x"]);
    }

    proptest! {
        #[test]
        fn any_line_is_cut_without_panic(text in any::<String>()) {
            let _ = line(&text);
            let _ = words(&text);
            let mut cursor = Cursor::new(&text);
            let mut steps = 0;
            while cursor.next_word().is_some() {
                steps += 1;
                prop_assert!(steps <= text.len() + 2);
            }
        }
    }
}
