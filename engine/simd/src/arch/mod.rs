//! One file for each family of processors: its tokens, what they prove, and the methods of `Simd`.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Methods of `Simd` that are one expression of intrinsics on registers.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! register_methods {
    ($(fn $name:ident $(<const $n:ident>)? ($($arg:ident: $kind:ty),*) -> $out:ty { $body:expr })*) => {$(
        #[inline(always)]
        fn $name $(<const $n: i32>)? (self $(, $arg: $kind)*) -> $out {
            // SAFETY: `self` proves that this processor has the instructions, which touch nothing but registers.
            unsafe { $body }
        }
    )*};
}
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use register_methods;

/// The same address, of which the compiler does not know how it came about: it stays in a register of its own.
#[inline(always)]
pub fn opaque<T>(p: *const T) -> *const T {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    {
        let mut at = p.addr();
        // SAFETY: no instruction is executed.
        unsafe { std::arch::asm!("/* {} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
        p.with_addr(at)
    }
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    p
}
