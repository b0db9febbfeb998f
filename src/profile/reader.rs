//! Reading a TOML table key by key, so that each fault can be told with its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What is wrong, and at which byte of the file.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) at: Option<usize>,
    pub(super) key: String,
    pub(super) why: String,
}

pub(super) type Found<T> = Result<T, Problem>;

/// A value with the key it was found at.
#[derive(Clone, Debug)]
pub(super) struct Item<T> {
    pub(super) key: String,
    pub(super) at: Range<usize>,
    pub(super) value: T,
}

impl<T> Item<T> {
    pub(super) fn problem(&self, why: impl Into<String>) -> Problem {
        Problem { at: Some(self.at.start), key: self.key.clone(), why: why.into() }
    }

    /// The same place with what `read` makes of the value.
    pub(super) fn read<U, E: Into<String>>(
        self,
        read: impl FnOnce(T) -> Result<U, E>,
    ) -> Found<Item<U>> {
        let Item { key, at, value } = self;
        match read(value) {
            Ok(value) => Ok(Item { key, at, value }),
            Err(why) => Err(Problem { at: Some(at.start), key, why: why.into() }),
        }
    }
}

/// A table being read. Every key that is asked for is known; [`TableReader::finish`] refuses the
/// others.
pub(super) struct TableReader<'a> {
    table: &'a DeTable<'a>,
    at: Range<usize>,
    path: String,
    known: Vec<&'static str>,
}

impl<'a> TableReader<'a> {
    pub(super) fn root(table: &'a Spanned<DeTable<'a>>) -> Self {
        TableReader { table: table.get_ref(), at: 0..0, path: String::new(), known: Vec::new() }
    }

    fn within(table: &'a DeTable<'a>, place: &Item<()>) -> Self {
        TableReader { table, at: place.at.clone(), path: place.key.clone(), known: Vec::new() }
    }

    /// Dotted name of `key` in this table.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn item(&mut self, key: &'static str) -> Option<Item<&'a DeValue<'a>>> {
        self.known.push(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Item { key: self.name(key), at: value.span(), value: value.get_ref() })
    }

    pub(super) fn text(&mut self, key: &'static str) -> Found<Option<Item<&'a str>>> {
        let item = self.item(key);
        item.map(|item| item.read(|value| value.as_str().ok_or("it must be a text in quotes")))
            .transpose()
    }

    pub(super) fn switch(&mut self, key: &'static str) -> Found<Option<bool>> {
        let item = self.item(key).map(|item| {
            item.read(|value| value.as_bool().ok_or("it must be true or false, without quotes"))
        });
        Ok(item.transpose()?.map(|item| item.value))
    }

    pub(super) fn number(&mut self, key: &'static str) -> Found<Option<Item<u64>>> {
        let item = self.item(key);
        item.map(|item| {
            item.read(|value| whole_number(value).ok_or("it must be a whole number without quotes"))
        })
        .transpose()
    }

    pub(super) fn decimal(&mut self, key: &'static str) -> Found<Option<Item<f64>>> {
        let item = self.item(key);
        item.map(|item| {
            item.read(|value| {
                let text = match value {
                    DeValue::Float(number) => number.as_str(),
                    DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
                    _ => return Err("it must be a number without quotes"),
                };
                text.parse::<f64>().map_err(|_| "it must be a number without quotes")
            })
        })
        .transpose()
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Found<Option<Item<Vec<Item<&'a str>>>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let wrong = "it must be a list of texts in brackets";
        let list = item.read(|value| value.as_array().ok_or(wrong))?;
        let entries = elements(&list).map(|entry| entry.read(|value| value.as_str().ok_or(wrong)));
        let value = entries.collect::<Found<Vec<_>>>()?;
        Ok(Some(Item { key: list.key, at: list.at, value }))
    }

    /// The table at `key`.
    pub(super) fn table(&mut self, key: &'static str) -> Found<Option<TableReader<'a>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let item = item.read(|value| value.as_table().ok_or("it must be a table"))?;
        let place = Item { key: item.key, at: item.at, value: () };
        Ok(Some(Self::within(item.value, &place)))
    }

    /// Every entry of a table whose keys are free, each a text or a list of texts.
    pub(super) fn entries(self) -> Found<Vec<Entry<'a>>> {
        let wrong = "it must be a text or a list of texts";
        let read = |(key, value): (
            &toml::Spanned<std::borrow::Cow<'a, str>>,
            &'a Spanned<DeValue<'a>>,
        )| {
            let name = key.get_ref().to_string();
            let item = Item { key: self.name(&name), at: value.span(), value: value.get_ref() };
            let texts = match item.value {
                DeValue::Array(list) => {
                    let list = Item { key: item.key.clone(), at: item.at.clone(), value: list };
                    let texts = elements(&list)
                        .map(|entry| entry.read(|value| value.as_str().ok_or(wrong)));
                    texts.collect::<Found<Vec<_>>>()?
                }
                _ => vec![item.read(|value| value.as_str().ok_or(wrong))?],
            };
            Ok((name, texts))
        };
        self.table.iter().map(read).collect()
    }

    /// The tables of an array of tables (`[[key]]`); none when it is not there.
    pub(super) fn tables(&mut self, key: &'static str) -> Found<Vec<TableReader<'a>>> {
        let Some(item) = self.item(key) else { return Ok(Vec::new()) };
        let wrong = format!("it must be written as [[{key}]]");
        let list = item.read(|value| value.as_array().ok_or_else(|| wrong.clone()))?;
        elements(&list)
            .map(|entry| {
                let entry = entry.read(|value| value.as_table().ok_or_else(|| wrong.clone()))?;
                let place = Item { key: entry.key, at: entry.at, value: () };
                Ok(Self::within(entry.value, &place))
            })
            .collect()
    }

    /// A value that is either true or false, or a text.
    pub(super) fn switch_or_text(
        &mut self,
        key: &'static str,
        wrong: &str,
    ) -> Found<Option<Item<SwitchOrText<'a>>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let read = |value: &'a DeValue<'a>| match (value.as_bool(), value.as_str()) {
            (Some(switch), _) => Ok(SwitchOrText::Switch(switch)),
            (None, Some(text)) => Ok(SwitchOrText::Text(text)),
            (None, None) => Err(wrong),
        };
        item.read(read).map(Some)
    }

    /// A value that is either a text or a table.
    pub(super) fn text_or_table(
        &mut self,
        key: &'static str,
        wrong: &str,
    ) -> Found<Option<TextOrTable<'a>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let place = Item { key: item.key.clone(), at: item.at.clone(), value: () };
        match item.value {
            DeValue::String(_) => Ok(self.text(key)?.map(TextOrTable::Text)),
            DeValue::Table(table) => {
                Ok(Some(TextOrTable::Table(place.clone(), Self::within(table, &place))))
            }
            _ => Err(place.problem(wrong)),
        }
    }

    /// A value that is either a text or a list of texts: a command.
    pub(super) fn text_or_texts(
        &mut self,
        key: &'static str,
    ) -> Found<Option<Item<TextOrTexts<'a>>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        if let DeValue::Array(_) = item.value {
            let Some(list) = self.texts(key)? else { return Ok(None) };
            let texts = list.value.into_iter().map(|item| item.value).collect();
            return Ok(Some(Item { key: list.key, at: list.at, value: TextOrTexts::Texts(texts) }));
        }
        let wrong = "it must be a text or a list of texts";
        item.read(|value| value.as_str().map(TextOrTexts::Text).ok_or(wrong)).map(Some)
    }

    /// What is said when `key`, which must be there, is missing.
    pub(super) fn missing(&self, key: &str, what_to_do: &str) -> Problem {
        Problem {
            at: Some(self.at.start).filter(|_| !self.path.is_empty()),
            key: self.name(key),
            why: format!("it is missing; {what_to_do}"),
        }
    }

    /// What is said about the table as a whole.
    pub(super) fn problem(&self, why: impl Into<String>) -> Problem {
        Problem { at: Some(self.at.start), key: self.path.clone(), why: why.into() }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// The first key that nobody asked for.
    pub(super) fn finish(self) -> Found<()> {
        let unknown = self
            .table
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !self.known.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        let Some(key) = unknown else { return Ok(()) };
        let why = match nearest(key.get_ref(), &self.known) {
            Some(meant) => format!("there is no such key; did you mean {meant}?"),
            None => format!("there is no such key; possible are {}", self.known.join(", ")),
        };
        Err(Problem { at: Some(key.span().start), key: self.name(key.get_ref()), why })
    }
}

/// An entry of a table with free keys: its key and its texts.
pub(super) type Entry<'a> = (String, Vec<Item<&'a str>>);

/// What [`TableReader::switch_or_text`] finds.
pub(super) enum SwitchOrText<'a> {
    Switch(bool),
    Text(&'a str),
}

/// What [`TableReader::text_or_table`] finds.
pub(super) enum TextOrTable<'a> {
    Text(Item<&'a str>),
    Table(Item<()>, TableReader<'a>),
}

/// What [`TableReader::text_or_texts`] finds.
pub(super) enum TextOrTexts<'a> {
    Text(&'a str),
    Texts(Vec<&'a str>),
}

fn elements<'a, 'b>(
    list: &'b Item<&'a DeArray<'a>>,
) -> impl Iterator<Item = Item<&'a DeValue<'a>>> + 'b {
    list.value.iter().map(|entry| Item {
        key: list.key.clone(),
        at: entry.span(),
        value: entry.get_ref(),
    })
}

fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

/// The known key that differs from `key` by at most two letters added, dropped or changed.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|candidate| (edit_distance(key, candidate), *candidate));
    near.filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, left) in one.chars().enumerate() {
        let mut next = vec![index + 1];
        for (right, pair) in other.iter().zip(row.windows(2)) {
            let &[diagonal, above] = pair else { continue };
            let before = next.last().copied().unwrap_or_default();
            let change = diagonal + usize::from(left != *right);
            next.push(change.min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_single_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("hots", "host"), 2);
        assert_eq!(edit_distance("host", "host"), 0);
        assert_eq!(edit_distance("maildr", "maildir"), 1);
    }

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        assert_eq!(nearest("maildr", &["sent", "maildir"]), Some("maildir"));
        assert_eq!(nearest("colour", &["sent", "maildir"]), None);
    }
}
