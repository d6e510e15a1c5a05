//! Reads TOML documents that people write: the configuration, the `hactl` context, what is given to `apply -f`.
//!
//! Why it exists: whoever mistypes a key at three in the morning must be told the file, the line, the key and the key
//! that was meant. What it never does: ignore a key that it does not know.

use serde::de::DeserializeOwned;
use std::fmt;

/// A document that does not say what it should; nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// The file's name as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, naming the key.
    pub message: String,
    /// The key that was probably meant.
    pub meant: Option<String>,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)?;
        match &self.meant {
            Some(key) => write!(f, "; did you mean `{key}`?"),
            None => Ok(()),
        }
    }
}

/// Reads a whole document.
///
/// # Errors
/// [`DocumentError`] with the line of the first mistake.
pub fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, DocumentError> {
    toml::from_str(text).map_err(|error| explain(file, text, &error))
}

fn explain(file: &str, text: &str, error: &toml::de::Error) -> DocumentError {
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    let unknown = unknown_key(&message);
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    // Serde reports a mistake inside a tagged table at the table, so the key itself is looked for from there on.
    let at = unknown.and_then(|key| find_key(text, at, key)).unwrap_or(at);
    let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let meant = unknown.and_then(|key| nearest(key, expected_keys(&message))).map(str::to_owned);
    DocumentError { file: file.to_owned(), line, message, meant }
}

/// The key that `expected` most probably meant, if any is near: at most a third of its letters differ.
pub fn nearest<'a>(key: &str, expected: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near =
        |candidate: &&str| strsim::damerau_levenshtein(key, candidate) * 3 <= key.chars().count().max(3);
    expected.filter(near).min_by_key(|candidate| strsim::damerau_levenshtein(key, candidate))
}

/// The key in serde's "unknown field `x`, expected one of `a`, `b`" (and "unknown variant", whose key is a value).
pub fn unknown_key(message: &str) -> Option<&str> {
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    rest.split('`').next()
}

/// The keys in the same message that would have been right.
pub fn expected_keys(message: &str) -> impl Iterator<Item = &str> {
    let rest = message.split_once(", expected ").map_or("", |(_, rest)| rest);
    rest.split('`').skip(1).step_by(2)
}

/// Offset of the first `key =` or of a quoted value `"key"` at or after `from`.
fn find_key(text: &str, from: usize, key: &str) -> Option<usize> {
    let quoted = format!("\"{key}\"");
    let start = text.get(..from)?.rfind('\n').map_or(0, |newline| newline + 1);
    let mut offset = start;
    for line in text.get(start..)?.split_inclusive('\n') {
        let names = |part: &str| part.trim_start().strip_prefix(key).is_some_and(ends_key);
        if line.split(['{', ',']).any(names) || line.contains(&quoted) {
            return Some(offset);
        }
        offset += line.len();
    }
    None
}

fn ends_key(rest: &str) -> bool {
    rest.trim_start().starts_with(['=', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        #[serde(default)]
        node: Vec<policies::Node>,
    }

    fn error(text: &str) -> String {
        read::<Doc>("rack.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_mistyped_key_is_named_with_file_and_line_and_the_key_that_was_meant() {
        let text = "[[node]]\nname = \"n1\"\ninitator = \"iqn\"\n";
        let said = error(text);
        assert!(said.starts_with("rack.toml:3: unknown field `initator`"), "{said}");
        assert!(said.ends_with("did you mean `initiator`?"), "{said}");
    }

    #[test]
    fn a_mistake_inside_a_tagged_table_is_found_on_its_own_line() {
        let text = "[[node]]\nname = \"n1\"\n[[node.fencing]]\ndriver = \"ipmi\"\naddress = \"127.0.0.1:623\"\n\
                    user = \"ha\"\npasword = \"x\"\n";
        let said = error(text);
        assert!(said.starts_with("rack.toml:7: unknown field `pasword`"), "{said}");
        assert!(said.ends_with("did you mean `password`?"), "{said}");
    }

    #[test]
    fn an_unknown_driver_is_named() {
        let text = "[[node]]\nname = \"n1\"\nfencing = [{ driver = \"impi\" }]\n";
        let said = error(text);
        assert!(said.starts_with("rack.toml:3: unknown variant `impi`"), "{said}");
        assert!(said.ends_with("did you mean `ipmi`?"), "{said}");
    }

    #[test]
    fn wrong_values_and_broken_text_are_named_too() {
        assert!(error("[[node]]\nname = \"N 1\"\n").starts_with("rack.toml:2: \"N 1\" is not a name"));
        assert!(error("[[node]\n").starts_with("rack.toml:1: "));
        assert!(error("[[node]]\nlabels = {}\n").contains("missing field `name`"));
    }

    #[test]
    fn nothing_is_suggested_for_a_key_that_is_far_from_all() {
        assert!(!error("[[node]]\nname = \"n1\"\ncolour = \"red\"\n").contains("did you mean"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_but_never_a_panic(text in "\\PC{0,200}") {
            if let Err(error) = read::<Doc>("any", &text) {
                prop_assert!(error.line >= 1);
            }
        }
    }
}
