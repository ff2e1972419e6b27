package upstream

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger says of each line which worker's it is. zap.Logger.With would keep a kilobyte and a half for each.
type logger struct{ cfg *Config }

func (l logger) write(level zapcore.Level, message string, fields []zap.Field) {
	if e := l.cfg.Log.Check(level, message); e != nil {
		e.Write(append([]zap.Field{zap.String("device", l.cfg.Device), zap.String("cloud", l.cfg.Cloud)}, fields...)...)
	}
}

func (l logger) Debug(message string, fields ...zap.Field) { l.write(zap.DebugLevel, message, fields) }
func (l logger) Info(message string, fields ...zap.Field)  { l.write(zap.InfoLevel, message, fields) }
func (l logger) Warn(message string, fields ...zap.Field)  { l.write(zap.WarnLevel, message, fields) }
func (l logger) Error(message string, fields ...zap.Field) { l.write(zap.ErrorLevel, message, fields) }
