//! Changes of images that leave their labels as they are.

use serde::{Deserialize, Serialize};

/// How images are changed at random.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// Half of them are mirrored, left for right.
    pub flip: bool,
    /// They are moved by up to so many pixels along each axis; what comes in is 0.
    pub crop: usize,
    /// They are turned about the centre by up to so many degrees either way.
    pub rotate: f32,
    /// Brightness, contrast and saturation are multiplied by 1 − x to 1 + x.
    pub color: f32,
}

impl std::str::FromStr for Augment {
    type Err = super::DataError;

    /// Some of `flip`, `crop:PIXELS`, `rotate:DEGREES`, `color:SHARE`, with commas between them.
    fn from_str(text: &str) -> Result<Augment, super::DataError> {
        Err(super::DataError::choice(text))
    }
}
