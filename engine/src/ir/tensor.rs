//! Tensors and the bytes behind them.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;
use half::{bf16, f16};
use memmap2::{Mmap, MmapMut};
use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::{DType, Extra, small};

/// What [`Bytes`] are a part of.
trait Owner: Send + Sync {
    fn bytes(&self) -> &[u8];
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: AsRef<[u8]> + Send + Sync + 'static> Owner for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }

    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Bytes that many may share: owned, or a part of a mapped file.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn Owner>,
    start: usize,
    len: usize,
}

struct Elements<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for Elements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Bytes of a huge page.
#[cfg(unix)]
const HUGE: usize = 2 << 20;

/// A file whose name could not be removed while it was open.
struct Scrap(PathBuf);

impl Drop for Scrap {
    fn drop(&mut self) {
        // Nothing more can be done: the file lies in a folder for temporary ones.
        let _ = fs::remove_file(&self.0);
    }
}

/// The map goes before the name.
struct Spilled {
    map: Mmap,
    _scrap: Option<Scrap>,
}

impl AsRef<[u8]> for Spilled {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// A new file in `dir`.
fn scrap(dir: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".secateur-{}-{n}.spill", std::process::id()));
        let mut options = File::options();
        match options.read(true).write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done.map(|file| (file, path)),
        }
    }
}

impl Bytes {
    /// Takes over a vector of numbers without a copy.
    pub fn new<T: Pod + Send + Sync>(data: Vec<T>) -> Bytes {
        Bytes::of(Elements(data))
    }

    /// The content of the file `path`, mapped. It must not be changed in place as long as anybody holds the bytes;
    /// replacing the file by renaming is safe.
    ///
    /// # Errors
    ///
    /// If it is not a regular file, or cannot be opened or mapped.
    pub fn map(path: &Path) -> io::Result<Bytes> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::new(Vec::<u8>::new()));
        }
        // SAFETY: the map is read-only, and this library replaces files by renaming, never in place; that nobody else
        // writes to the file is what the contract above asks of the caller.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Bytes::of(map))
    }

    /// `len` bytes that `fill` writes over zeros, kept in a nameless file in the folder `dir` and mapped: memory that the
    /// system can take back, for results too large to be held as such. `dir` should be on a disk.
    ///
    /// # Errors
    ///
    /// If the file cannot be made, or the disk is full.
    pub fn spilled(dir: &Path, len: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Bytes> {
        if len == 0 {
            fill(&mut []);
            return Ok(Bytes::new(Vec::<u8>::new()));
        }
        let (mut file, path) = scrap(dir)?;
        let scrap = fs::remove_file(&path).is_err().then_some(Scrap(path));
        // Written out, not only sized: a full disk must be an error here, not a fault while filling.
        let zeros = [0; 1 << 14];
        for done in (0..len).step_by(zeros.len()) {
            file.write_all(&zeros[..zeros.len().min(len - done)])?;
        }
        // SAFETY: the file was made just now, readable by nobody else under a name that is gone, and is as long as the map.
        let mut map = unsafe { MmapMut::map_mut(&file)? };
        fill(&mut map);
        let map = map.make_read_only()?;
        Ok(Bytes::of(Spilled { map, _scrap: scrap }))
    }

    /// All the bytes of `owner`.
    pub fn of(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Bytes {
        let len = owner.as_ref().len();
        Bytes {
            owner: Arc::new(owner),
            start: 0,
            len,
        }
    }

    /// The vector that [`Bytes::new`] took over, without a copy if nobody else has it and all of it is meant.
    fn into_vec<T: Pod + Send + Sync>(self) -> Vec<T> {
        let all = self.start == 0 && self.len == self.owner.bytes().len();
        let copy = |bytes: &[u8]| cast(bytes).into_owned();
        match self.owner.clone().any().downcast::<Elements<T>>() {
            Ok(shared) if all => {
                drop(self.owner);
                Arc::try_unwrap(shared).map_or_else(|s| s.0.clone(), |e| e.0)
            }
            _ => copy(&self),
        }
    }

    /// The part `range`, sharing the same memory. `None` if it reaches beyond the end.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Option<Bytes> {
        (range.start <= range.end && range.end <= self.len).then(|| Bytes {
            owner: self.owner.clone(),
            start: self.start + range.start,
            len: range.len(),
        })
    }

    /// Tells the system that this part of a mapped file is not needed for now; it is read again when it is.
    pub fn unload(&self) {
        #[cfg(unix)]
        if let Ok(map) = self.owner.clone().any().downcast::<Mmap>() {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // The system maps huge pages of the file as wholes, and so neighbours that were given back before.
            let around = if self.len < HUGE { 0 } else { HUGE };
            let start = self.start.saturating_sub(around);
            let len = (self.start + self.len).saturating_add(around).min(map.len()) - start;
            // SAFETY: the map is of a file and only read, so that pages which are dropped come back as they were. Where the
            // system refuses, they stay.
            let _ = unsafe { map.unchecked_advise_range(advice, start, len) };
        }
    }

    /// Whether both are the same stretch of the same memory.
    pub fn same(&self, other: &Bytes) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner) && (self.start, self.len) == (other.start, other.len)
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.start..self.start + self.len]
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        self.same(other) || **self == **other
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// A Rust type that stores one element of a [`DType`].
pub trait Element: Pod + Send + Sync + PartialEq + PartialOrd + fmt::Debug {
    /// The element type it stores.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty = $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(
    f32 = F32,
    f64 = F64,
    f16 = F16,
    bf16 = BF16,
    u8 = U8,
    i8 = I8,
    u16 = U16,
    i16 = I16
);
elements!(u32 = U32, i32 = I32, u64 = U64, i64 = I64);

trait Storage: Send + Sync {
    fn bytes_mut(&mut self) -> &mut [u8];
    fn share(self: Box<Self>) -> Bytes;
}

impl<T: Pod + Send + Sync> Storage for Elements<T> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    fn share(self: Box<Self>) -> Bytes {
        Bytes::of(*self)
    }
}

/// Memory for the elements of a tensor that is about to be computed.
pub struct Buffer(Box<dyn Storage>);

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer(Box::new(Elements::<u8>(vec![])))
    }
}

impl Buffer {
    /// Zeros for `count` elements of type `dtype`. `None` where elements have no fixed size or are too many.
    pub fn new(dtype: DType, count: usize) -> Option<Buffer> {
        fn of<T: Pod + Send + Sync>(n: usize) -> Buffer {
            Buffer(Box::new(Elements(vec![T::zeroed(); n])))
        }
        let bytes = dtype.bytes(count)?;
        Some(match dtype {
            DType::F32 => of::<f32>(count),
            DType::F64 => of::<f64>(count),
            DType::F16 => of::<f16>(count),
            DType::BF16 => of::<bf16>(count),
            DType::I64 => of::<i64>(count),
            DType::I32 => of::<i32>(count),
            DType::I16 => of::<i16>(count),
            DType::I8 => of::<i8>(count),
            DType::U64 => of::<u64>(count),
            DType::U32 => of::<u32>(count),
            DType::U16 => of::<u16>(count),
            DType::C64 | DType::C128 => of::<f64>(bytes / 8),
            _ => of::<u8>(bytes),
        })
    }

    /// The elements of `tensor`, to be changed; not copied if nobody else has them. `None` for strings.
    pub fn taken(tensor: Tensor) -> Option<Buffer> {
        fn of<T: Pod + Send + Sync>(bytes: Bytes) -> Buffer {
            Buffer(Box::new(Elements(bytes.into_vec::<T>())))
        }
        let (dtype, Data::Bytes(bytes)) = (tensor.dtype, tensor.data) else {
            return None;
        };
        Some(match dtype {
            DType::F32 => of::<f32>(bytes),
            DType::F64 | DType::C64 | DType::C128 => of::<f64>(bytes),
            DType::F16 => of::<f16>(bytes),
            DType::BF16 => of::<bf16>(bytes),
            DType::I64 => of::<i64>(bytes),
            DType::I32 => of::<i32>(bytes),
            DType::I16 => of::<i16>(bytes),
            DType::I8 => of::<i8>(bytes),
            DType::U64 => of::<u64>(bytes),
            DType::U32 => of::<u32>(bytes),
            DType::U16 => of::<u16>(bytes),
            _ => of::<u8>(bytes),
        })
    }

    /// The packed bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    /// The bytes, no longer to be changed.
    pub fn share(self) -> Bytes {
        self.0.share()
    }
}

/// The elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Little-endian, row-major, packed; see [`DType::bits`].
    Bytes(Bytes),
    /// The elements of a tensor of strings.
    Strings(Arc<[Vec<u8>]>),
}

/// A dense row-major tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    data: Data,
}

/// A tensor whose data does not fit its type and dimensions.
#[derive(Debug, PartialEq)]
pub struct SizeMismatch {
    /// Bytes (elements, for strings) that type and dimensions ask for; `None` if that is more than memory can have.
    pub expected: Option<usize>,
    /// Bytes (elements, for strings) found.
    pub found: usize,
}

impl fmt::Display for SizeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.expected {
            Some(n) => write!(f, "expected {n} bytes of data, found {}", self.found),
            None => write!(f, "dimensions ask for more data than memory can hold"),
        }
    }
}

impl std::error::Error for SizeMismatch {}

/// The number of elements of a tensor with dimensions `dims`; `None` on overflow.
pub fn count(dims: &[usize]) -> Option<usize> {
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// The number of elements if no axis were of size 0: what goes along each axis has a bound too. `None` on overflow.
pub(crate) fn extent(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))
}

impl Tensor {
    /// A tensor over existing data.
    ///
    /// # Errors
    ///
    /// If the data is not as long as `dtype` and `dims` ask for. Bytes of a type without a meaning may have any length.
    pub fn new(dtype: DType, dims: Vec<usize>, data: Data) -> Result<Tensor, SizeMismatch> {
        let n = count(&dims);
        let (expected, found) = match &data {
            Data::Bytes(b) if matches!(dtype, DType::Other(_)) => (n.map(|_| b.len()), b.len()),
            Data::Bytes(b) => (n.and_then(|n| dtype.bytes(n)), b.len()),
            Data::Strings(s) => (n.filter(|_| dtype == DType::String), s.len()),
        };
        match expected == Some(found) {
            true => Ok(Tensor { dtype, dims, data }),
            false => Err(SizeMismatch { expected, found }),
        }
    }

    /// A tensor that takes over `data`.
    ///
    /// # Panics
    ///
    /// If `data` does not have the product of `dims` elements.
    pub fn of<T: Element>(dims: &[usize], data: Vec<T>) -> Tensor {
        assert_eq!(count(dims), Some(data.len()), "elements of {dims:?}");
        Tensor {
            dtype: T::DTYPE,
            dims: dims.to_vec(),
            data: Data::Bytes(Bytes::new(data)),
        }
    }

    /// A tensor of strings.
    ///
    /// # Panics
    ///
    /// If there are not as many as `dims` ask for.
    pub fn of_strings(dims: &[usize], data: Vec<Vec<u8>>) -> Tensor {
        assert_eq!(count(dims), Some(data.len()), "strings for {dims:?}");
        Tensor {
            dtype: DType::String,
            dims: dims.to_vec(),
            data: Data::Strings(data.into()),
        }
    }

    /// A tensor of truth values.
    ///
    /// # Panics
    ///
    /// If `data` does not have the product of `dims` elements.
    pub fn bools(dims: &[usize], data: impl IntoIterator<Item = bool>) -> Tensor {
        Tensor {
            dtype: DType::Bool,
            ..Tensor::of::<u8>(dims, data.into_iter().map(u8::from).collect())
        }
    }

    /// A tensor of strings.
    ///
    /// # Panics
    ///
    /// If `data` does not have the product of `dims` elements.
    pub fn texts(dims: &[usize], data: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Tensor {
        let data: Vec<Vec<u8>> = data.into_iter().map(Into::into).collect();
        assert_eq!(count(dims), Some(data.len()), "elements of {dims:?}");
        Tensor {
            dtype: DType::String,
            dims: dims.to_vec(),
            data: Data::Strings(data.into()),
        }
    }

    /// A scalar.
    pub fn scalar<T: Element>(x: T) -> Tensor {
        Tensor::of(&[], vec![x])
    }

    /// A tensor of zeros (`false`, empty strings). `None` where that is more than memory can hold, or `dtype` is unknown.
    pub fn zeros(dtype: DType, dims: &[usize]) -> Option<Tensor> {
        let n = count(dims)?;
        let data = match dtype {
            DType::String => Data::Strings(vec![Vec::new(); n].into()),
            _ => Data::Bytes(Bytes::new(vec![0u64; dtype.bytes(n)?.div_ceil(8)]).slice(0..dtype.bytes(n)?)?),
        };
        Some(Tensor {
            dtype,
            dims: dims.to_vec(),
            data,
        })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each axis, outermost first; empty for a scalar.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Bytes that the elements take, strings included.
    pub fn size(&self) -> usize {
        let string = |n: usize, s: &Vec<u8>| n.saturating_add(s.len() + std::mem::size_of::<Vec<u8>>());
        self.strings().iter().fold(self.bytes().len(), string)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        count(&self.dims).unwrap_or(0)
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// Tells the system that elements in a mapped file are not needed for now.
    pub fn unload(&self) {
        if let Data::Bytes(b) = &self.data {
            b.unload();
        }
    }

    /// The packed little-endian elements; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(b) => b,
            Data::Strings(_) => &[],
        }
    }

    /// The elements of a tensor of strings; empty for other types.
    pub fn strings(&self) -> &[Vec<u8>] {
        match &self.data {
            Data::Bytes(_) => &[],
            Data::Strings(s) => s,
        }
    }

    /// The elements as `T`, copied only where the bytes are not aligned for it. `None` if the element type is another.
    pub fn elements<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        (self.dtype == T::DTYPE).then(|| cast(self.bytes()))
    }

    /// The elements of a tensor of truth values; `None` for other types.
    pub fn truths(&self) -> Option<Vec<bool>> {
        (self.dtype == DType::Bool).then(|| self.bytes().iter().map(|&b| b != 0).collect())
    }

    /// A tensor of elements of at most 8 bits, of which `codes` has one in the low bits of each byte. `None` for other
    /// types, or where there is not the product of `dims` elements.
    pub(crate) fn of_codes(dtype: DType, dims: &[usize], codes: Vec<u8>) -> Option<Tensor> {
        if count(dims) != Some(codes.len()) {
            return None;
        }
        let bytes = match dtype.bits() {
            bits @ 1..8 => small::packed(&codes, bits),
            8 => codes,
            _ => return None,
        };
        Tensor::new(dtype, dims.to_vec(), Data::Bytes(Bytes::new(bytes))).ok()
    }

    /// Elements of at most 8 bits, each in the low bits of a byte; `None` for other types.
    pub(crate) fn codes(&self) -> Option<Vec<u8>> {
        match self.dtype.bits() {
            bits @ 1..8 => {
                let mut codes = small::unpacked(self.bytes(), bits);
                codes.truncate(self.len());
                Some(codes)
            }
            8 => Some(self.bytes().to_vec()),
            _ => None,
        }
    }

    /// The elements of an integer or `bool` tensor, widened; `None` for other types and for values beyond `i64`.
    pub fn ints(&self) -> Option<Vec<i64>> {
        fn wide<T: Element + TryInto<i64>>(t: &Tensor) -> Option<Vec<i64>> {
            t.elements::<T>()?.iter().map(|&x| x.try_into().ok()).collect()
        }
        match self.dtype {
            DType::I64 => wide::<i64>(self),
            DType::I32 => wide::<i32>(self),
            DType::I16 => wide::<i16>(self),
            DType::I8 => wide::<i8>(self),
            DType::U64 => wide::<u64>(self),
            DType::U32 => wide::<u32>(self),
            DType::U16 => wide::<u16>(self),
            DType::U8 => wide::<u8>(self),
            DType::Bool => Some(self.bytes().iter().map(|&b| i64::from(b != 0)).collect()),
            d if d.is_int() => {
                let codes = self.codes()?.into_iter();
                Some(codes.map(|c| small::widened(d, c).into()).collect())
            }
            _ => None,
        }
    }

    /// The elements of a numeric or `bool` tensor as `f64`, rounded where need be; `None` for other types.
    pub fn floats(&self) -> Option<Vec<f64>> {
        Some(match self.dtype {
            DType::F32 => self.elements::<f32>()?.iter().map(|&x| x.into()).collect(),
            DType::F64 => self.elements::<f64>()?.into_owned(),
            DType::F16 => self.elements::<f16>()?.iter().map(|&x| x.into()).collect(),
            DType::BF16 => self.elements::<bf16>()?.iter().map(|&x| x.into()).collect(),
            DType::U64 => self.elements::<u64>()?.iter().map(|&x| x as f64).collect(),
            d if small::is_small(d) => {
                let codes = self.codes()?.into_iter();
                codes.map(|c| small::decode(d, c)).collect()
            }
            _ => self.ints()?.into_iter().map(|x| x as f64).collect(),
        })
    }

    /// A numeric or `bool` tensor from `f64`s: floats rounded to nearest, those of at most 8 bits saturated; integers
    /// truncated and saturated; `bool` true where not 0. `None` for other types, or where `data` does not have the product
    /// of `dims` elements.
    pub fn rounded(dtype: DType, dims: &[usize], data: &[f64]) -> Option<Tensor> {
        if count(dims) != Some(data.len()) {
            return None;
        }
        macro_rules! of {
            ($convert:expr) => {
                Tensor::of(dims, data.iter().map(|&x| $convert(x)).collect())
            };
        }
        Some(match dtype {
            DType::F32 => of!(|x| x as f32),
            DType::F64 => of!(|x| x),
            DType::F16 => of!(small::to_f16),
            DType::BF16 => of!(small::to_bf16),
            DType::U8 => of!(|x| x as u8),
            DType::I8 => of!(|x| x as i8),
            DType::U16 => of!(|x| x as u16),
            DType::I16 => of!(|x| x as i16),
            DType::U32 => of!(|x| x as u32),
            DType::I32 => of!(|x| x as i32),
            DType::U64 => of!(|x| x as u64),
            DType::I64 => of!(|x| x as i64),
            DType::Bool => Tensor::bools(dims, data.iter().map(|&x| x != 0.0)),
            d if small::is_small(d) => {
                let codes = data.iter().map(|&x| small::encode(d, x, true)).collect();
                return Tensor::of_codes(d, dims, codes);
            }
            d => {
                let (low, high) = small::limits(d)?;
                let code = |&x: &f64| (x as i64).clamp(low, high) as u8;
                return Tensor::of_codes(d, dims, data.iter().map(code).collect());
            }
        })
    }

    /// The only element as `f64`, if there is exactly one and it is a number.
    pub fn item(&self) -> Option<f64> {
        if self.len() != 1 {
            return None;
        }
        self.floats().map(|x| x[0])
    }

    /// The elements as an array without a copy. `None` if they are no `T` or are not aligned for it.
    pub fn view<T: Element>(&self) -> Option<ArrayViewD<'_, T>> {
        match self.elements::<T>()? {
            Cow::Borrowed(data) => ArrayViewD::from_shape(IxDyn(&self.dims), data).ok(),
            Cow::Owned(_) => None,
        }
    }

    /// The elements as an array, without a copy if nobody else has them. `None` if they are no `T`.
    pub fn into_array<T: Element>(self) -> Option<ArrayD<T>> {
        match self.data {
            Data::Bytes(bytes) if self.dtype == T::DTYPE => {
                ArrayD::from_shape_vec(IxDyn(&self.dims), bytes.into_vec()).ok()
            }
            _ => None,
        }
    }

    /// The elements of an array in row-major order.
    pub fn from_array<T: Element>(array: ArrayD<T>) -> Tensor {
        let dims = array.shape().to_vec();
        match array.is_standard_layout() {
            true => {
                let (data, offset) = array.into_raw_vec_and_offset();
                let start = offset.unwrap_or(0);
                let n = dims.iter().product::<usize>();
                match start == 0 && data.len() == n {
                    true => Tensor::of(&dims, data),
                    false => Tensor::of(&dims, data[start..start + n].to_vec()),
                }
            }
            false => Tensor::of(&dims, array.iter().copied().collect()),
        }
    }

    /// The same tensor with its bytes aligned for its elements, copied only where they are not.
    pub fn aligned(&self) -> Tensor {
        match &self.data {
            Data::Bytes(b) if b.as_ptr().align_offset(8) != 0 => {
                let mut words = vec![0u64; b.len().div_ceil(8)];
                bytemuck::cast_slice_mut(&mut words)[..b.len()].copy_from_slice(b);
                let copy = Bytes::new(words);
                Tensor {
                    data: Data::Bytes(copy.slice(0..b.len()).unwrap_or(copy)),
                    ..self.clone()
                }
            }
            _ => self.clone(),
        }
    }

    /// Whether both have the same memory.
    pub(crate) fn shares(&self, other: &Tensor) -> bool {
        match (&self.data, &other.data) {
            (Data::Bytes(a), Data::Bytes(b)) => a.same(b),
            _ => false,
        }
    }

    /// The same elements under other dimensions. `None` if the number of elements differs.
    pub fn reshaped(&self, dims: &[usize]) -> Option<Tensor> {
        (count(dims) == Some(self.len())).then(|| Tensor {
            dims: dims.to_vec(),
            ..self.clone()
        })
    }
}

/// `bytes` as elements, copied only where they are not aligned.
pub(crate) fn cast<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(s) => Cow::Borrowed(s),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

/// Where and how a file keeps a tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Form {
    /// In `raw_data`.
    #[default]
    Raw,
    /// In the field for its type (`float_data`, `int32_data` …). `payload` is the field's packed content where packing
    /// the elements again would not give the same bytes.
    Typed {
        /// The content as it was read, `None` where it follows from the elements.
        payload: Option<Bytes>,
    },
    /// In a file of its own.
    External(External),
    /// In `sparse_initializer`: only the values that are not zero, and where they stand.
    Sparse {
        /// The `SparseTensorProto` as it was read; `None` once the elements have changed.
        proto: Option<Bytes>,
    },
}

/// The place of a tensor in an external file.
#[derive(Clone, Debug, PartialEq)]
pub struct External {
    /// The entries of `external_data`, in order: `location`, `offset`, `length`, `checksum` and others.
    pub entries: Vec<(String, String)>,
    /// The file that was mapped, and the position of the first byte in it.
    pub source: Option<(PathBuf, u64)>,
}

impl External {
    /// The entry called `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }
}

/// A tensor that the file holds, with what the file says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// The elements, always dense.
    pub tensor: Arc<Tensor>,
    /// How the file keeps them.
    pub form: Form,
    /// Other fields of the `TensorProto`: name (where it is not the value's), documentation, metadata, unknown ones.
    pub extra: Extra,
}

impl Constant {
    /// A constant that will be written as `raw_data` (strings: `string_data`).
    pub fn new(tensor: Tensor) -> Constant {
        let form = match tensor.dtype {
            DType::String => Form::Typed { payload: None },
            _ => Form::Raw,
        };
        Constant {
            tensor: Arc::new(tensor),
            form,
            extra: Extra::default(),
        }
    }

    /// The same constant with other elements, kept in the same form as far as they allow.
    pub fn with(&self, tensor: Tensor) -> Constant {
        let form = match &self.form {
            Form::Typed { .. } => Form::Typed { payload: None },
            Form::Sparse { .. } => Form::Sparse { proto: None },
            Form::External(e) => Form::External(External {
                source: None,
                ..e.clone()
            }),
            Form::Raw => Form::Raw,
        };
        Constant {
            tensor: Arc::new(tensor),
            form,
            extra: self.extra.clone(),
        }
    }
}
