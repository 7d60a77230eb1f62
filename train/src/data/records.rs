//! Tables as text: fields with a character between them, records one a line.

use std::borrow::Cow;

use super::DataError;

/// Columns that no table has.
const MOST: usize = 1 << 20;

/// The records of a table, one after the other. Fields may stand in quotes, as RFC 4180 has it; empty lines are skipped.
pub(super) struct Records<'a> {
    rest: &'a str,
    line: usize,
    between: char,
}

impl<'a> Records<'a> {
    pub(super) fn new(text: &'a str, between: char) -> Records<'a> {
        Records {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            line: 1,
            between,
        }
    }

    /// Puts the fields of the next record into `fields`: the line in which it begins, from 1, or `None` at the end.
    pub(super) fn next(&mut self, fields: &mut Vec<Cow<'a, str>>) -> Result<Option<usize>, DataError> {
        fields.clear();
        while let Some(rest) = self
            .rest
            .strip_prefix('\n')
            .or_else(|| self.rest.strip_prefix("\r\n"))
        {
            self.rest = rest;
            self.line += 1;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let line = self.line;
        loop {
            if fields.len() == MOST {
                let what = format!("expected at most {MOST} fields, found more");
                return Err(DataError::format(what).at(format!("line {line}")));
            }
            fields.push(self.field().map_err(|e| e.at(format!("line {line}")))?);
            let mut rest = self.rest.chars();
            let after = rest.next();
            self.rest = rest.as_str();
            if after != Some(self.between) {
                self.line += 1;
                return Ok(Some(line));
            }
        }
    }

    /// One field; what follows begins with the character between fields or the end of the line.
    fn field(&mut self) -> Result<Cow<'a, str>, DataError> {
        let Some(inner) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([self.between, '\n']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(Cow::Borrowed(field.strip_suffix('\r').unwrap_or(field)));
        };
        let mut end = 0;
        loop {
            let Some(quote) = inner[end..].find('"') else {
                return Err(DataError::format(
                    "expected a closing quote, found the end of the file",
                ));
            };
            end += quote;
            if !inner[end + 1..].starts_with('"') {
                break;
            }
            end += 2;
        }
        let (field, rest) = (&inner[..end], &inner[end + 1..]);
        self.line += field.matches('\n').count();
        self.rest = rest.strip_prefix('\r').unwrap_or(rest);
        if !self.rest.is_empty() && !self.rest.starts_with([self.between, '\n']) {
            return Err(DataError::format(
                "expected the end of the field after a closing quote",
            ));
        }
        Ok(match field.contains('"') {
            true => Cow::Owned(field.replace("\"\"", "\"")),
            false => Cow::Borrowed(field),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(usize, Vec<String>)>, DataError> {
        let (mut records, mut fields, mut all) = (Records::new(text, ','), vec![], vec![]);
        while let Some(line) = records.next(&mut fields)? {
            all.push((line, fields.iter().map(|f| f.to_string()).collect()));
        }
        Ok(all)
    }

    #[test]
    fn fields_may_be_quoted() {
        let found = all("\u{feff}a,b\r\n\n\"1\n,\"\"x\",\n3,4").unwrap();
        let of = |line, fields: [&str; 2]| (line, fields.map(str::to_owned).to_vec());
        assert_eq!(
            found,
            [of(1, ["a", "b"]), of(3, ["1\n,\"x", ""]), of(5, ["3", "4"])]
        );
        assert_eq!(all("é,").unwrap(), [of(1, ["é", ""])]);
        assert_eq!(all("").unwrap(), []);
    }

    #[test]
    fn open_quotes_are_found() {
        let e = all("a\n\"b\nc").unwrap_err().to_string();
        assert_eq!(e, "line 2: expected a closing quote, found the end of the file");
        assert!(all("\"b\"c").is_err());
    }
}
