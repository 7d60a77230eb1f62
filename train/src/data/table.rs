//! Tables of numbers or texts: `.csv`, `.tsv`, and `.tab` as Orange writes it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use secateur_engine::run::nearest;

use super::error::Wrong;
use super::options::{Options, Task};
use super::records::Records;
use super::store::{Cells, Column, Labels, Parts, Store};
use super::text::Vocabulary;
use super::{DataError, classes, file, split};

/// Whether `path` is a table.
pub(super) fn takes(path: &Path) -> bool {
    ["csv", "tsv", "tab"].contains(&file::extension(path).as_str())
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Label,
    Number,
    Text,
    Skipped,
}

/// What the first records say of the others.
#[derive(Debug)]
struct Head {
    names: Vec<String>,
    kinds: Vec<Kind>,
    /// Records before the first example.
    skip: usize,
}

type Fields<'a> = Vec<Cow<'a, str>>;

/// How Orange spells the types of columns, and what they are for.
const TYPES: &[&str] = &[
    "c",
    "continuous",
    "d",
    "discrete",
    "s",
    "string",
    "text",
    "t",
    "time",
];

impl Head {
    fn of(path: &Path, first: &[Fields], options: &Options) -> Result<Head, DataError> {
        let top = first.first().ok_or_else(|| DataError::missing("no records"))?;
        let orange = first.len() >= 3 && first[1].len() == top.len() && file::extension(path) == "tab";
        match orange && first[1].iter().all(|t| TYPES.contains(&&**t)) {
            true => Head::orange(first, options.label.as_deref()),
            false => Head::plain(first, options),
        }
    }

    /// Names, types and purposes stand in a record each.
    fn orange(first: &[Fields], label: Option<&str>) -> Result<Head, DataError> {
        let names: Vec<String> = first[0].iter().map(|f| f.to_string()).collect();
        let purpose = |i: usize| first[2].get(i).map_or("", |f| f.trim());
        let class = (0..names.len()).find(|&i| purpose(i).starts_with("class"));
        let at = match label {
            Some(label) => place(&names, label)?,
            None => class.unwrap_or(names.len() - 1),
        };
        let kind = |i: usize| match (&*first[1][i], purpose(i)) {
            _ if i == at => Kind::Label,
            (_, "ignore" | "i") => Kind::Skipped,
            ("s" | "string" | "text", _) => Kind::Text,
            (_, "meta" | "m" | "class") => Kind::Skipped,
            _ => Kind::Number,
        };
        let kinds = (0..names.len()).map(kind).collect();
        Ok(Head {
            names,
            kinds,
            skip: 3,
        })
    }

    /// The first record is names if one of its features is no number, and the one below it is.
    fn plain(first: &[Fields], options: &Options) -> Result<Head, DataError> {
        let label = options.label.as_deref();
        let named = |l: &str| l.parse::<usize>().is_err();
        let below = first.get(1).unwrap_or(&first[0]);
        let names: Vec<String> = first[0].iter().map(|f| f.trim().to_owned()).collect();
        // A number is no name here: without names the first record has numbers.
        let number = label
            .and_then(|l| l.parse().ok())
            .filter(|&i: &usize| i < names.len());
        let at = match label {
            Some(label) => number.map_or_else(|| place(&names, label), Ok)?,
            None => names.len() - 1,
        };
        let features: Vec<usize> = (0..names.len()).filter(|&i| i != at).collect();
        let is_number = |r: &Fields, i: usize| r.get(i).is_some_and(|f| f.trim().parse::<f64>().is_ok());
        let head = features
            .iter()
            .any(|&i| !is_number(&first[0], i) && is_number(below, i));
        let text = features.len() == 1 && !features.iter().any(|&i| is_number(below, i));
        // Of texts the first record is names if no other has the same label.
        let classes = options.task == Task::Classes;
        let lone = || text && classes && !first[1..].iter().any(|r| r.get(at) == first[0].get(at));
        let kind = |i: usize| match (i == at, text) {
            (true, _) => Kind::Label,
            (_, true) => Kind::Text,
            _ => Kind::Number,
        };
        Ok(Head {
            kinds: (0..names.len()).map(kind).collect(),
            skip: usize::from(head || label.is_some_and(named) || lone()),
            names,
        })
    }
}

impl Head {
    /// The names of the columns beside the label.
    fn features(&self) -> impl Iterator<Item = &String> {
        let kinds = self.names.iter().zip(&self.kinds);
        let of = kinds.filter(|(_, k)| matches!(k, Kind::Number | Kind::Text));
        of.map(|(name, _)| name)
    }
}

/// Which of `names` is meant by `label`, a name or a number from 0.
fn place(names: &[String], label: &str) -> Result<usize, DataError> {
    let by_name = names.iter().position(|n| n == label);
    let found = by_name.or_else(|| label.parse().ok().filter(|&i: &usize| i < names.len()));
    let none = || {
        let few = &names[..names.len().min(20)];
        DataError::choice(format!(
            "expected a label among {few:?}, found {label:?}{}",
            nearest(label, few)
        ))
    };
    found.ok_or_else(none)
}

/// Labels as they stand there, each once.
#[derive(Default)]
struct Said {
    texts: Vec<String>,
    /// The line in which each is first.
    lines: Vec<usize>,
    number: HashMap<String, u32>,
    /// Of all examples.
    all: Vec<u32>,
}

impl Said {
    fn add(&mut self, text: &str, line: usize) {
        let number = match self.number.get(text) {
            Some(&n) => n,
            None => {
                let n = self.texts.len() as u32;
                self.number.insert(text.to_owned(), n);
                self.texts.push(text.to_owned());
                self.lines.push(line);
                n
            }
        };
        self.all.push(number);
    }
}

/// What a file holds.
struct Table {
    path: PathBuf,
    features: usize,
    /// Their names, where the file has some.
    names: Option<Vec<String>>,
    numbers: Vec<f32>,
    texts: Vec<String>,
    is_text: bool,
    said: Said,
    values: Vec<f32>,
    len: usize,
}

/// Records that tell of the others.
const FIRST: usize = 200;

impl Table {
    fn read(path: &Path, options: &Options) -> Result<Table, DataError> {
        let bytes = file::content(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
            DataError::format("expected UTF-8").at(format!("line {line}"))
        });
        text.and_then(|t| Table::parse(t, path, options))
            .map_err(|e| e.in_file(path))
    }

    fn parse(text: &str, path: &Path, options: &Options) -> Result<Table, DataError> {
        let top = text.lines().next().unwrap_or("");
        let between = match file::extension(path).as_str() {
            "csv" if !top.contains(',') && top.contains(';') => ';',
            "csv" => ',',
            _ => '\t',
        };
        let (mut first, mut fields) = (vec![], vec![]);
        let mut records = Records::new(text, between);
        while first.len() < FIRST && records.next(&mut fields)?.is_some() {
            first.push(fields.clone());
        }
        let head = Head::of(path, &first, options)?;
        let mut table = Table::empty(path, &head)?;
        let mut records = Records::new(text, between);
        let mut number = 0;
        while let Some(line) = records.next(&mut fields)? {
            if number >= head.skip {
                table.add(&head, &fields, line, options.task)?;
            }
            number += 1;
        }
        match table.len {
            0 => Err(DataError::missing("no records below the names of the columns")),
            _ => Ok(table),
        }
    }

    fn empty(path: &Path, head: &Head) -> Result<Table, DataError> {
        let features = head.features().count();
        let texts = head.kinds.iter().filter(|&&k| k == Kind::Text).count();
        if features == 0 {
            let what = format!("expected columns beside the label, found {:?}", head.names);
            return Err(DataError::format(what));
        }
        if texts > 0 && texts < features {
            let what = "expected numbers or texts, found columns of both";
            return Err(DataError::format(what));
        }
        Ok(Table {
            path: path.to_owned(),
            features,
            names: (head.skip > 0).then(|| head.features().cloned().collect()),
            numbers: vec![],
            texts: vec![],
            is_text: texts > 0,
            said: Said::default(),
            values: vec![],
            len: 0,
        })
    }

    fn add(&mut self, head: &Head, fields: &Fields, line: usize, task: Task) -> Result<(), DataError> {
        if fields.len() != head.kinds.len() {
            let what = format!("expected {} fields, found {}", head.kinds.len(), fields.len());
            return Err(DataError::format(what).at(format!("line {line}")));
        }
        let mut text = String::new();
        for ((field, kind), name) in fields.iter().zip(&head.kinds).zip(&head.names) {
            let number = || number(field).map_err(|e| e.at(format!("line {line}, column {name:?}")));
            match kind {
                Kind::Label if task != Task::Classes => self.values.push(number()?),
                Kind::Label => self.said.add(field.trim(), line),
                Kind::Number => self.numbers.push(number()?),
                Kind::Text => text = text + field + " ",
                Kind::Skipped => {}
            }
        }
        if self.is_text {
            self.texts.push(text);
        }
        self.len += 1;
        Ok(())
    }

    /// The examples, of which `words` has those that texts are made of.
    fn store(
        self,
        names: &[String],
        words: Option<&Vocabulary>,
        options: &Options,
    ) -> Result<Store, DataError> {
        let labels = match options.task {
            Task::Values | Task::Unlabelled => Labels::Values(self.values, 1),
            Task::Classes => {
                let found = |(text, line): (&String, &usize)| {
                    classes::find(names, text).map_err(|e| e.at(format!("line {line}")).in_file(&self.path))
                };
                let numbers = self.said.texts.iter().zip(&self.said.lines).map(found);
                let numbers = numbers.collect::<Result<Vec<i64>, _>>()?;
                Labels::Classes(self.said.all.iter().map(|&n| numbers[n as usize]).collect())
            }
        };
        let numbers = || Column {
            name: "x".into(),
            dims: vec![self.features],
            cells: Cells::Floats(self.numbers),
        };
        Ok(Store {
            source: self.path.display().to_string(),
            columns: words.map_or_else(|| vec![numbers()], |w| w.columns(&self.texts, options.words)),
            labels,
            names: names.into(),
            vocabulary: words.map_or_else(|| vec![].into(), |w| w.words.clone()),
        })
    }
}

fn number(field: &str) -> Result<f32, DataError> {
    let found = field.trim().parse().ok().filter(|x: &f32| x.is_finite());
    found.or_wrong(|| format!("expected a number, found {field:?}"))
}

/// The file beside `path` that has `part` where this one has `train`: at the end of the name.
fn beside(path: &Path, part: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (stem, end) = name.split_at(name.find('.')?);
    let found = path.with_file_name(format!("{}{part}{end}", stem.strip_suffix("train")?));
    found.is_file().then_some(found)
}

/// The table at `path`; if its name ends in `train`, with `test` and `validation` beside it.
pub(super) fn read(path: &Path, options: &Options) -> Result<Parts, DataError> {
    if options.words == 0 || options.vocabulary < 3 {
        let what = "expected at least 1 word a text and a vocabulary of 3";
        return Err(DataError::choice(what));
    }
    let other = |part: &str| beside(path, part).map(|p| Table::read(&p, options)).transpose();
    let train = Table::read(path, options)?;
    let (validation, test) = (other("validation")?, other("test")?);
    for t in validation.iter().chain(&test) {
        if (t.features, t.is_text) != (train.features, train.is_text) {
            let what = format!(
                "expected {} columns beside the label, found {}",
                train.features, t.features
            );
            return Err(DataError::shape(what).in_file(&t.path));
        }
        if let (Some(found), Some(names)) = (&t.names, &train.names)
            && found != names
        {
            let what = format!("expected the columns {names:?}, found {found:?}");
            return Err(DataError::shape(what).in_file(&t.path));
        }
    }
    let words = match train.is_text {
        true => {
            let rows = split::rows(train.len, (validation.is_some(), test.is_some()), options);
            // All but those for testing: which words have ids does not depend on how many are for validation.
            let rows = rows.map_err(|e| e.in_file(path))?;
            let mut rows = [rows.train, rows.validation].concat();
            rows.sort_unstable();
            let texts = rows.iter().map(|&r| train.texts[r as usize].as_str());
            Some(Vocabulary::of(texts, options.vocabulary))
        }
        false => None,
    };
    let names = match options.task {
        Task::Classes => classes::names(train.said.texts.iter().map(String::as_str)),
        Task::Values | Task::Unlabelled => vec![].into(),
    };
    let store = |t: Table| t.store(&names, words.as_ref(), options);
    Ok(Parts {
        validation: validation.map(store).transpose()?,
        test: test.map(store).transpose()?,
        train: store(train)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::file::tests::Folder;
    use crate::data::{Part, Splits, open};

    fn with(options: &Options, name: &str, text: &str) -> Result<Splits, DataError> {
        let folder = Folder::new();
        let path = folder.file(name, text);
        let all = Options {
            validation: Part::Count(0),
            test: Some(Part::Count(0)),
            ..options.clone()
        };
        open(path.to_str().unwrap(), &all)
    }

    fn read(name: &str, text: &str) -> Result<Splits, DataError> {
        with(&Options::default(), name, text)
    }

    fn classes(s: &Splits) -> (Vec<f64>, Vec<i64>) {
        let b = s.train.batch(&(0..s.train.len()).collect::<Vec<_>>()).unwrap();
        (b.inputs[0].1.floats().unwrap(), b.labels.ints().unwrap())
    }

    #[test]
    fn tables_have_names_or_not() {
        let named = read("x.csv", "a,b,kind\n1,2.5,dog\n3,4,cat\n").unwrap();
        assert_eq!(classes(&named), (vec![1.0, 2.5, 3.0, 4.0], vec![1, 0]));
        assert_eq!(named.train.names(), ["cat", "dog"]);
        let bare = read("x.tsv", "1\t2\t7\n3\t4\t0").unwrap();
        assert_eq!((classes(&bare).1, bare.train.classes()), (vec![7, 0], Some(8)));
        let label = Options {
            label: Some("b".into()),
            ..Options::default()
        };
        let first = with(&label, "x.csv", "b;a\n1;2\n0;3\n").unwrap();
        assert_eq!(classes(&first), (vec![2.0, 3.0], vec![1, 0]));
        let label = Options {
            label: Some("0".into()),
            task: Task::Values,
            ..Options::default()
        };
        let values = with(&label, "x.csv", "1.5,2\n0,3\n").unwrap().train;
        assert_eq!(values.batch(&[0, 1]).unwrap().labels.dims(), [2, 1]);
        assert_eq!((values.classes(), values.len()), (None, 2));
    }

    #[test]
    fn texts_become_words() {
        let tab = "kind\ttext\nd\tstring\nclass\t\n\na\tx y\nb\ty z\na\ty\n";
        let found = read("x.tab", tab).unwrap().train;
        assert_eq!(found.names(), ["a", "b"]);
        assert_eq!(found.vocabulary(), ["[PAD]", "[UNK]", "y", "x", "z"]);
        assert_eq!(found.inputs()[1].name, "attention_mask");
        assert_eq!(found.inputs()[1].dims, [128]);
        let csv = read("x.csv", "text,kind\n\"x, y\",a\nz,b\nz,a\nz,b\n")
            .unwrap()
            .train;
        assert_eq!((csv.len(), csv.names().len()), (4, 2));
    }

    #[test]
    fn a_published_split_is_kept() {
        let folder = Folder::new();
        let train: String = (0..20).map(|i| format!("{i},{}\n", ["a", "b"][i % 2])).collect();
        let path = folder.file("x-train.csv", train);
        folder.file("x-test.csv", "7,b\n");
        let splits = open(path.to_str().unwrap(), &Options::default()).unwrap();
        let sizes = [
            Some(&splits.train),
            splits.validation.as_ref(),
            splits.test.as_ref(),
        ]
        .map(|d| d.unwrap().len());
        assert_eq!(sizes, [18, 2, 1]);
        assert_eq!(
            splits.test.unwrap().batch(&[0]).unwrap().labels.ints(),
            Some(vec![1])
        );
        folder.file("x-test.csv", "7,b\n8,c\n");
        let e = open(path.to_str().unwrap(), &Options::default())
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("x-test.csv: line 2: expected one of [\"a\", \"b\"], found \"c\""),
            "{e}"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            (
                "a,b,y\n1,2,0\n\n1,1\n",
                "x.csv: line 4: expected 3 fields, found 2",
            ),
            (
                "a,b,y\n1,2,0\n1,x,1\n",
                "x.csv: line 3, column \"b\": expected a number, found \"x\"",
            ),
            (
                "a,b,y\n1,2,0\n1,nan,1\n",
                "line 3, column \"b\": expected a number",
            ),
            ("1\n2\n", "expected columns beside the label"),
            ("", "no records"),
            ("a,b\n", "no records below"),
        ] {
            let e = read("x.csv", text).unwrap_err().to_string();
            assert!(e.contains(said), "{text:?}: {e}");
        }
        let label = Options {
            label: Some("lable".into()),
            ..Options::default()
        };
        let e = with(&label, "x.csv", "a,label\n1,2\n").unwrap_err().to_string();
        assert!(e.contains("did you mean \"label\""), "{e}");
        let folder = Folder::new();
        let path = folder.file("x.csv", b"1,2\n\xff,3\n");
        let e = open(path.to_str().unwrap(), &Options::default())
            .unwrap_err()
            .to_string();
        assert!(e.contains("line 2: expected UTF-8"), "{e}");
    }
}
