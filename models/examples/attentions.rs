//! Writes a model of every variant of attention: `attentions DIR`. `scripts/check_onnx.py DIR/*.onnx` checks them.

use std::path::Path;

use secateur_models::attention::{ATTENTIONS, AttentionError, Setting};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: attentions DIR")?;
    std::fs::create_dir_all(&dir)?;
    let setting = Setting {
        layers: 2,
        ..Setting::default()
    };
    for kind in ATTENTIONS {
        match (kind.build)(&setting) {
            Ok(model) => model.save(Path::new(&dir).join(format!("{}.onnx", kind.name)))?,
            Err(AttentionError::NotImplemented(_)) => {}
            Err(e) => return Err(format!("{}: {e}", kind.name).into()),
        }
    }
    Ok(())
}
