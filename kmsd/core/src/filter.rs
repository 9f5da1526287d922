//! The filter of a key listing: a small language, read into terms that cannot be wrong.
//!
//! ```text
//! filter = term *( "AND" term )
//! term   = field ( "=" / "!=" ) value
//! field  = "algorithm" / "dataset" / "exportable" / "labels." ( word / quoted ) / "mechanisms"
//!        / "model" / "name" / "pkcs11_label" / "state" / "usages"
//! value  = word / quoted
//! word   = 1*( letter / digit / "_" / "-" / "." / "/" / ":" / "+" / "@" / "*" )
//! quoted = DQUOTE *( any but DQUOTE and "\" / "\" DQUOTE / "\\" ) DQUOTE
//! ```
//!
//! A set (usages, mechanisms) equals a value when it holds it. A label that is not there equals
//! nothing. A name is the key's own, or the full one where the value has a slash; with a `*` at its end
//! the value is a prefix.

use crate::algorithm::{Algorithm, Usage};
use crate::key::Key;
use crate::lifecycle::State;
use crate::mechanism::Mechanism;

/// Which keys are listed; the default lists all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    terms: Vec<Term>,
}

/// Why a text is no filter. The caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("at character {at}: {problem}")]
pub struct FilterError {
    /// Where, counted in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub problem: FilterProblem,
}

/// What is wrong with a filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterProblem {
    /// Something else than a comparison follows a field.
    #[error("expected = or != after a field")]
    Comparison,
    /// No such field.
    #[error(
        "expected algorithm, dataset, exportable, labels.KEY, mechanisms, model, name, pkcs11_label, state or usages"
    )]
    Field,
    /// Something else than `AND` follows a term.
    #[error("expected AND between two terms")]
    Join,
    /// The text is longer than [`FILTER_BYTES_MAX`].
    #[error("a filter has at most {FILTER_BYTES_MAX} bytes")]
    TooLong,
    /// There are more terms than [`FILTER_TERMS_MAX`].
    #[error("a filter has at most {FILTER_TERMS_MAX} terms")]
    TooMany,
    /// A quoted text does not end, or has an escape other than `\"` and `\\`.
    #[error("a quoted text ends with \", and has no escapes but \\\" and \\\\")]
    Quote,
    /// The field has no such value.
    #[error("the field has no such value; published names are like AES_256, SIGN, ACTIVE, true")]
    Value,
    /// No value where one is expected.
    #[error("expected a word, or a text in double quotes")]
    Word,
}

impl Filter {
    /// Reads a filter; an empty text is the filter that lists all.
    ///
    /// # Errors
    /// [`FilterError`] with the first position that is wrong.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError { at: 1, problem: FilterProblem::TooLong });
        }
        let mut reader = Reader { text, at: 0 };
        let mut terms = Vec::new();
        reader.skip_spaces();
        while !reader.is_at_end() {
            if !terms.is_empty() {
                reader.join()?;
            }
            if terms.len() == FILTER_TERMS_MAX {
                return Err(reader.wrong(reader.at, FilterProblem::TooMany));
            }
            terms.push(reader.term()?);
            reader.skip_spaces();
        }
        Ok(Self { terms })
    }

    /// Whether the state of a key's primary version matters, so that it must be read.
    pub fn needs_state(&self) -> bool {
        self.terms.iter().any(|term| matches!(term.test, Test::State(_)))
    }

    /// Whether `key` is listed. `primary` is where its primary version stands; a key without one
    /// stands nowhere.
    pub fn matches(&self, key: &Key, primary: Option<State>) -> bool {
        self.terms.iter().all(|term| term.test.equals(key, primary) != term.negated)
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Test {
    Algorithm(Algorithm),
    Dataset(String),
    Exportable(bool),
    Label { key: String, value: String },
    Mechanism(Mechanism),
    Model(String),
    Name(String),
    Pkcs11Label(String),
    State(State),
    Usage(Usage),
}

impl Test {
    fn read(field: &Field, value: String) -> Option<Self> {
        Some(match field {
            Field::Algorithm => Self::Algorithm(value.parse().ok()?),
            Field::Dataset => Self::Dataset(value),
            Field::Exportable => Self::Exportable(value.parse().ok()?),
            Field::Label(key) => Self::Label { key: key.clone(), value },
            Field::Mechanisms => Self::Mechanism(value.parse().ok()?),
            Field::Model => Self::Model(value),
            Field::Name => Self::Name(value),
            Field::Pkcs11Label => Self::Pkcs11Label(value),
            Field::State => {
                Self::State(State::ALL.into_iter().find(|state| state.as_str() == value)?)
            }
            Field::Usages => Self::Usage(value.parse().ok()?),
        })
    }

    fn equals(&self, key: &Key, primary: Option<State>) -> bool {
        match self {
            Self::Algorithm(algorithm) => key.algorithm == *algorithm,
            Self::Dataset(dataset) => key.dataset == *dataset,
            Self::Exportable(exportable) => key.exportable == *exportable,
            Self::Label { key: label, value } => key.labels.get(label) == Some(value),
            Self::Mechanism(mechanism) => key.mechanisms.contains(mechanism),
            Self::Model(model) => key.model == *model,
            Self::Name(pattern) if pattern.contains('/') => is_like(&key.name.to_string(), pattern),
            Self::Name(pattern) => is_like(key.name.key.as_str(), pattern),
            Self::Pkcs11Label(label) => key.pkcs11.label == *label,
            Self::State(state) => primary == Some(*state),
            Self::Usage(usage) => key.usages.contains(usage),
        }
    }
}

fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

enum Field {
    Algorithm,
    Dataset,
    Exportable,
    Label(String),
    Mechanisms,
    Model,
    Name,
    Pkcs11Label,
    State,
    Usages,
}

/// A place in the text; `at` is always on a border of characters.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn wrong(&self, at: usize, problem: FilterProblem) -> FilterError {
        let before = self.text.get(..at).unwrap_or(self.text);
        FilterError { at: before.chars().count() + 1, problem }
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        let comes = self.rest().starts_with(token);
        self.at += if comes { token.len() } else { 0 };
        comes
    }

    fn join(&mut self) -> Result<(), FilterError> {
        let at = self.at;
        let joined = self.word() == Some("AND");
        self.skip_spaces();
        match joined {
            true if self.is_at_end() => Err(self.wrong(self.at, FilterProblem::Field)),
            true => Ok(()),
            false => Err(self.wrong(at, FilterProblem::Join)),
        }
    }

    fn term(&mut self) -> Result<Term, FilterError> {
        let field = self.field()?;
        self.skip_spaces();
        let negated = match (self.take("!="), self.take("=")) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => return Err(self.wrong(self.at, FilterProblem::Comparison)),
        };
        self.skip_spaces();
        let at = self.at;
        let value = self.value()?;
        let test = Test::read(&field, value);
        let test = test.ok_or_else(|| self.wrong(at, FilterProblem::Value))?;
        Ok(Term { negated, test })
    }

    fn field(&mut self) -> Result<Field, FilterError> {
        let at = self.at;
        if self.take("labels.") {
            return Ok(Field::Label(self.value()?));
        }
        match self.word() {
            Some("algorithm") => Ok(Field::Algorithm),
            Some("dataset") => Ok(Field::Dataset),
            Some("exportable") => Ok(Field::Exportable),
            Some("mechanisms") => Ok(Field::Mechanisms),
            Some("model") => Ok(Field::Model),
            Some("name") => Ok(Field::Name),
            Some("pkcs11_label") => Ok(Field::Pkcs11Label),
            Some("state") => Ok(Field::State),
            Some("usages") => Ok(Field::Usages),
            _ => Err(self.wrong(at, FilterProblem::Field)),
        }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let word = self.word().map(str::to_owned);
        word.ok_or_else(|| self.wrong(self.at, FilterProblem::Word))
    }

    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./:+@*".contains(c);
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).filter(|word| !word.is_empty())
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let begin = self.at;
        let mut text = String::new();
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match (escaped, c) {
                (false, '"') => {
                    self.at = begin + offset + c.len_utf8();
                    return Ok(text);
                }
                (false, '\\') => escaped = true,
                (true, c) if c != '"' && c != '\\' => {
                    return Err(self.wrong(begin + offset, FilterProblem::Quote));
                }
                (_, c) => {
                    text.push(c);
                    escaped = false;
                }
            }
        }
        Err(self.wrong(begin, FilterProblem::Quote))
    }
}

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// Most terms of a filter.
pub const FILTER_TERMS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    fn labelled(label: &str, value: &str) -> Key {
        let mut key = key();
        key.labels.insert(label.to_owned(), value.to_owned());
        key
    }

    #[test]
    fn terms_select_and_negated_terms_leave_out() {
        let key = labelled("env", "prod");
        for (filter, listed) in [
            ("", true),
            ("  ", true),
            ("labels.env = prod", true),
            (r#"labels.env = "prod" AND algorithm = EC_P256"#, true),
            ("labels.env=prod AND algorithm=AES_256", false),
            ("labels.env!=prod", false),
            ("labels.owner = ops", false),
            ("labels.owner != ops", true),
            ("usages = SIGN AND usages != WRAP AND mechanisms=ECDSA_SHA256", true),
            ("usages = WRAP", false),
            ("state = ACTIVE", true),
            ("state != ACTIVE", false),
            ("exportable = false", true),
            ("model = \"\" AND dataset = \"\"", true),
            ("name = k", true),
            ("name = k*", true),
            ("name = \"tenants/t/locations/l/keyRings/r/*\"", true),
            ("name = k2", false),
            ("pkcs11_label = web", false),
            // A word like any other where a value is expected.
            ("name = AND", false),
        ] {
            let read = Filter::parse(filter).unwrap();
            assert_eq!(read.matches(&key, Some(State::Active)), listed, "{filter}");
        }
        assert!(Filter::parse("state=ACTIVE").unwrap().needs_state());
        assert!(!Filter::parse("state=ACTIVE").unwrap().matches(&key, None));
        assert!(!Filter::parse("name=x").unwrap().needs_state());
    }

    #[test]
    fn quoted_texts_hold_anything() {
        let key = labelled("Größe \"x\"", "a AND b = \\");
        let filter = r#"labels."Größe \"x\"" = "a AND b = \\" AND name=k"#;
        assert!(Filter::parse(filter).unwrap().matches(&key, None));
    }

    #[test]
    fn what_is_no_filter_is_refused_where_it_goes_wrong() {
        use FilterProblem as P;
        let many = vec!["name=k"; FILTER_TERMS_MAX + 1].join(" AND ");
        let long = format!("name={}", "k".repeat(FILTER_BYTES_MAX));
        for (text, at, problem) in [
            ("owner = ops", 1, P::Field),
            ("= ops", 1, P::Field),
            ("name", 5, P::Comparison),
            ("name < k", 6, P::Comparison),
            ("name =", 7, P::Word),
            ("name = k name = j", 10, P::Join),
            ("name = k and name = j", 10, P::Join),
            ("name = k OR name = j", 10, P::Join),
            ("name = k AND", 13, P::Field),
            ("name = k AND ü = 1", 14, P::Field),
            ("labels. = x", 8, P::Word),
            ("labels.ä = x", 8, P::Word),
            ("algorithm = aes_256", 13, P::Value),
            ("algorithm = AES_256X", 13, P::Value),
            ("usages = RUN", 10, P::Value),
            ("mechanisms = ROT13", 14, P::Value),
            ("state = LOST", 9, P::Value),
            ("exportable = yes", 14, P::Value),
            ("model = \"open", 9, P::Quote),
            ("model = \"a\\n\"", 12, P::Quote),
            ("labels.\"ü\" = 'x'", 14, P::Word),
            (&many, 32 * 11 + 1, P::TooMany),
            (&long, 1, P::TooLong),
        ] {
            let expected = Err(FilterError { at, problem });
            assert_eq!(Filter::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        let alphabet = ["name", "labels.", "=", "!", "\"", "\\", " ", "AND", "ü", "*", "\u{0}"];
        for n in 0..alphabet.len().pow(4) {
            let pick = |place: u32| alphabet[n / alphabet.len().pow(place) % alphabet.len()];
            let text: String = (0..4).map(pick).collect();
            let _ = Filter::parse(&text);
        }
    }
}
