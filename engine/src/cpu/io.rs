//! The memory that kernels see.

use std::marker::PhantomData;

use memmap2::MmapMut;

use super::Pool;
use crate::ir::{DType, Element, Tensor};

/// A tensor that a kernel reads.
#[derive(Clone, Copy)]
pub struct View<'a> {
    dtype: DType,
    dims: &'a [usize],
    ptr: *const u8,
    bytes: usize,
    shared: bool,
    memory: PhantomData<&'a [u8]>,
}

/// A tensor that a kernel writes.
pub struct ViewMut<'a> {
    dtype: DType,
    dims: &'a [usize],
    ptr: *mut u8,
    bytes: usize,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: a view is a shared borrow of plain numbers.
unsafe impl Send for View<'_> {}
// SAFETY: as above; nothing can be changed through it.
unsafe impl Sync for View<'_> {}
// SAFETY: a mutable view is an exclusive borrow of plain numbers.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: through a shared reference it gives only a pointer and sizes.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> View<'a> {
    /// A view of bytes.
    ///
    /// # Panics
    ///
    /// If `data` is not as long as `dtype` and `dims` ask for.
    pub fn new(dtype: DType, dims: &'a [usize], data: &'a [u8]) -> View<'a> {
        let expected = dtype.bytes(dims.iter().product());
        assert_eq!(expected, Some(data.len()), "bytes of {dtype}{dims:?}");
        View {
            dtype,
            dims,
            ptr: data.as_ptr(),
            bytes: data.len(),
            shared: false,
            memory: PhantomData,
        }
    }

    /// A view of a tensor of numbers.
    pub fn of(t: &'a Tensor) -> View<'a> {
        View::new(t.dtype(), t.dims(), t.bytes())
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each axis.
    pub fn dims(&self) -> &'a [usize] {
        self.dims
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// The same tensor where its elements stand at the start of `out`, which is about to overwrite them.
    ///
    /// # Panics
    ///
    /// If `out` has another size.
    pub fn over(self, out: &ViewMut<'a>) -> View<'a> {
        assert_eq!(self.bytes, out.bytes, "bytes");
        View {
            ptr: out.ptr,
            shared: true,
            ..self
        }
    }

    /// Whether output 0 has the same memory: each element must be read before it is overwritten.
    pub fn in_place(&self) -> bool {
        self.shared
    }

    /// The packed bytes.
    ///
    /// # Panics
    ///
    /// If output 0 has the same memory.
    pub fn bytes(&self) -> &'a [u8] {
        assert!(!self.shared, "an input that is overwritten in place has no slice");
        // SAFETY: the view was made from a slice of this length that lives for 'a, and no output shares it.
        unsafe { std::slice::from_raw_parts(self.ptr, self.bytes) }
    }

    /// A copy of the packed bytes, which outputs may share.
    pub fn to_vec(&self) -> Vec<u8> {
        // SAFETY: the view was made from a slice of this length, and nobody writes while it is copied.
        unsafe { std::slice::from_raw_parts(self.ptr, self.bytes) }.to_vec()
    }

    /// The elements.
    ///
    /// # Panics
    ///
    /// If the elements are no `T`, are not aligned for it, or output 0 has the same memory.
    pub fn slice<T: Element>(&self) -> &'a [T] {
        assert_eq!(self.dtype, T::DTYPE, "element type");
        bytemuck::cast_slice(self.bytes())
    }

    /// The address of the first byte.
    pub fn start(&self) -> *const u8 {
        self.ptr
    }

    /// The first element.
    ///
    /// # Panics
    ///
    /// If the elements are no `T`, or are not aligned for it.
    pub fn ptr<T: Element>(&self) -> *const T {
        assert_eq!(self.dtype, T::DTYPE, "element type");
        let ptr = self.ptr.cast::<T>();
        assert!(ptr.is_aligned(), "alignment");
        ptr
    }
}

impl<'a> ViewMut<'a> {
    /// A view of bytes.
    ///
    /// # Panics
    ///
    /// If `data` is not as long as `dtype` and `dims` ask for.
    pub fn new(dtype: DType, dims: &'a [usize], data: &'a mut [u8]) -> ViewMut<'a> {
        let expected = dtype.bytes(dims.iter().product());
        assert_eq!(expected, Some(data.len()), "bytes of {dtype}{dims:?}");
        ViewMut {
            dtype,
            dims,
            ptr: data.as_mut_ptr(),
            bytes: data.len(),
            memory: PhantomData,
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each axis.
    pub fn dims(&self) -> &'a [usize] {
        self.dims
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// The same view, for a while.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut { ..*self }
    }

    /// What was written so far, as an input that is about to be overwritten.
    pub fn again(&self) -> View<'a> {
        View {
            dtype: self.dtype,
            dims: self.dims,
            ptr: self.ptr,
            bytes: self.bytes,
            shared: true,
            memory: PhantomData,
        }
    }

    /// The packed bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the view was made from an exclusive slice of this length that lives for 'a.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.bytes) }
    }

    /// The elements.
    ///
    /// # Panics
    ///
    /// If the elements are no `T`, or are not aligned for it.
    pub fn slice<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(self.dtype, T::DTYPE, "element type");
        bytemuck::cast_slice_mut(self.bytes())
    }

    /// The address of the first byte.
    pub fn start(&self) -> *mut u8 {
        self.ptr
    }

    /// The first element.
    ///
    /// # Panics
    ///
    /// If the elements are no `T`, or are not aligned for it.
    pub fn ptr<T: Element>(&self) -> *mut T {
        assert_eq!(self.dtype, T::DTYPE, "element type");
        let ptr = self.ptr.cast::<T>();
        assert!(ptr.is_aligned(), "alignment");
        ptr
    }
}

/// All that a kernel has when it runs.
pub struct Io<'a> {
    /// The node's inputs; `None` where left out.
    pub inputs: &'a [Option<View<'a>>],
    /// The node's outputs; `None` where nobody wants them.
    pub outputs: &'a mut [Option<ViewMut<'a>>],
    /// What [`Kernel::scratch`](super::Kernel::scratch) asked for, aligned to 64 bytes, its content left from earlier.
    pub scratch: &'a mut [u8],
    /// The threads to run on.
    pub pool: &'a Pool,
}

impl<'a> Io<'a> {
    /// Input `i`, which must be there.
    ///
    /// # Panics
    ///
    /// If it is not; whoever made the kernel has seen to that.
    pub fn input(&self, i: usize) -> View<'a> {
        self.inputs[i].expect("input")
    }

    /// Output `i`, which must be wanted.
    ///
    /// # Panics
    ///
    /// If it is not; whoever made the kernel has seen to that.
    pub fn output(&mut self, i: usize) -> &mut ViewMut<'a> {
        self.outputs[i].as_mut().expect("output")
    }

    /// Input `i` and output 0 with the number of elements, for kernels that work element by element and so may overwrite
    /// the input in place.
    pub fn pair<T: Element, U: Element>(&self, i: usize) -> (*const T, *mut U, usize) {
        let out = self.outputs[0].as_ref().expect("output");
        (self.input(i).ptr(), out.ptr(), out.len())
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Bytes from which on memory is taken in huge pages, where the system has them: weights that stream by would otherwise
/// wait for the table of pages.
const HUGE: usize = 1 << 20;

/// Memory aligned to 64 bytes from which the views of a run are cut.
pub struct Arena(Memory);

enum Memory {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

impl Default for Arena {
    fn default() -> Arena {
        Arena(Memory::Lines(vec![]))
    }
}

impl Arena {
    /// Memory of at least `bytes`, zeroed.
    pub fn new(bytes: usize) -> Arena {
        let bytes = bytes.next_multiple_of(64);
        let pages = (bytes >= HUGE).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        match pages {
            Some(pages) => {
                // Without them everything works the same, only slower.
                #[cfg(target_os = "linux")]
                let _ = pages.advise(memmap2::Advice::HugePage);
                Arena(Memory::Pages(pages))
            }
            None => Arena(Memory::Lines(vec![Line([0; 64]); bytes / 64])),
        }
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether it has no memory.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: lines are plain bytes without padding; the length is theirs.
            Memory::Lines(lines) => unsafe {
                std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 64)
            },
            Memory::Pages(pages) => pages,
        }
    }

    /// All bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            // SAFETY: as above, and the borrow is exclusive.
            Memory::Lines(lines) => unsafe {
                std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64)
            },
            Memory::Pages(pages) => pages,
        }
    }
}
