//! The words of a host line of an INI inventory, and of arguments for ssh: quotes and backslashes as a shell has them.

use super::super::error::InputError;

/// A word and where it starts, in characters from 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub at: usize,
    pub text: String,
}

/// Splits as Python's `shlex` does with comments: a `#` outside quotes ends the line, even in a word.
///
/// # Errors
/// Where a quote is not closed, or nothing follows a backslash.
pub(super) fn split(line: &str) -> Result<Vec<Word>, (usize, InputError)> {
    words(line, true)
}

/// Splits as Ansible splits arguments for ssh: a `#` is nothing special.
///
/// # Errors
/// As for [`split`].
pub(super) fn arguments(text: &str) -> Result<Vec<Word>, (usize, InputError)> {
    words(text, false)
}

fn words(line: &str, comments: bool) -> Result<Vec<Word>, (usize, InputError)> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, usize)> = None;
    let mut characters = line.chars().enumerate().peekable();
    while let Some((at, character)) = characters.next() {
        let begun = |word: &mut Option<Word>, more: Option<char>| {
            let word = word.get_or_insert_with(|| Word {
                at,
                text: String::new(),
            });
            word.text.extend(more);
        };
        match (character, quote) {
            (close, Some((open, _))) if close == open => quote = None,
            ('\\', Some(('"', _))) => {
                let next = characters.next_if(|(_, next)| matches!(next, '"' | '\\'));
                begun(&mut word, Some(next.map_or('\\', |(_, next)| next)));
            }
            (other, Some(_)) => begun(&mut word, Some(other)),
            ('"' | '\'', None) => {
                begun(&mut word, None);
                quote = Some((character, at));
            }
            ('\\', None) => match characters.next() {
                Some((_, next)) => begun(&mut word, Some(next)),
                None => return Err((at, InputError::new("nothing follows this backslash"))),
            },
            ('#', None) if comments => break,
            (space, None) if space.is_ascii_whitespace() => words.extend(word.take()),
            (other, None) => begun(&mut word, Some(other)),
        }
    }
    if let Some((_, at)) = quote {
        return Err((at, InputError::new("this quote is not closed")));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Vec<(usize, String)> {
        let words = split(line).unwrap().into_iter();
        words.map(|word| (word.at, word.text)).collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(
            shown("a b='c d'  e=\"f \\\" g\" # h"),
            [
                (0, "a".into()),
                (2, "b=c d".into()),
                (11, "e=f \" g".into())
            ]
        );
        assert_eq!(shown("a=b#c"), [(0, "a=b".into())]);
        assert_eq!(shown("a='#' b\\ c"), [(0, "a=#".into()), (6, "b c".into())]);
        assert_eq!(
            shown("'' \"a\\n\""),
            [(0, String::new()), (3, "a\\n".into())]
        );
        assert_eq!(split("a b='c").unwrap_err().0, 4);
        assert_eq!(split("a\\").unwrap_err().0, 1);
    }
}
