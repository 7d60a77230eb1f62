//! How photos become numbers.

use serde::{Deserialize, Serialize};

/// How the pixels of photos, 0 to 255, become numbers: (pixel × scale − mean) ÷ std, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Photos {
    /// One number or one a channel; 0 where nothing is said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// One number or one a channel; 1 where nothing is said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f64>,
    /// 1/255 where nothing is said, and 1 for inputs of integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The order of axes: `nchw` or `nhwc`; what the shape of the input looks like where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
}

impl Photos {
    pub(super) fn check(&self) -> Result<(), String> {
        let finite = |all: &[f64]| all.iter().find(|x| !x.is_finite()).copied();
        if let Some(x) = finite(&self.mean).or(finite(&self.std)) {
            return Err(format!("expected finite numbers for photos, found {x}"));
        }
        if self.std.contains(&0.0) {
            return Err("photos are divided by std; expected other numbers than 0".into());
        }
        if let Some(x) = self.scale.filter(|x| !x.is_finite() || *x == 0.0) {
            return Err(format!("expected a scale of photos other than 0, found {x}"));
        }
        match self.layout.as_deref() {
            None | Some("nchw" | "nhwc") => Ok(()),
            Some(other) => Err(format!("expected a layout nchw or nhwc, found {other:?}")),
        }
    }
}
