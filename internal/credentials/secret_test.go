package credentials

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

const hidden = "hunter2hunter2"

// holders are everything that holds a secret.
func holders(t *testing.T) []any {
	s := Secret(hidden)
	cert := TencentCertificate{ProductID: "P", DeviceName: "d", Key: readKey(t)}
	ids := []any{
		s, &s, Aliyun{Secret: s}, Tencent{Secret: s}, Generic{Password: s}, cert, Login{Password: hidden},
	}
	return append(ids, struct{ Any any }{ids[2]}, []any{ids[6]}, map[string]any{"login": ids[6]},
		struct {
			ID    Identity
			Login Login
		}{cert, Login{Password: hidden}})
}

func TestSecretsDoNotPrint(t *testing.T) {
	for _, v := range holders(t) {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3v", "% x"} {
			checkHidden(t, format, fmt.Sprintf(format, v))
		}
		checkHidden(t, "Sprint", fmt.Sprint(v))
	}
	if s := fmt.Sprintf("%v %+v %s", Secret(hidden), Login{ClientID: "c", Password: hidden}, Secret("")); s !=
		"*** {ClientID:c Username: Password:***} " {
		t.Errorf("prints as %q", s)
	}
	if s := fmt.Sprintf("%q %#v", Secret(hidden), Secret(hidden)); s != `"***" "***"` {
		t.Errorf("prints as %s", s)
	}
}

// Some private keys are plain bytes, which fmt would print.
func TestKeyDoesNotPrint(t *testing.T) {
	key := ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	id := TencentCertificate{ProductID: "P", Key: key}
	for _, v := range []any{id, &id, struct{ ID Identity }{id}} {
		if s := fmt.Sprintf("%+v", v); !strings.Contains(s, "ProductID:P") || !strings.Contains(s, "Key:<nil>") {
			t.Errorf("prints as %s", s)
		}
	}
}

func TestSecretsDoNotEncode(t *testing.T) {
	for _, v := range holders(t) {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		checkHidden(t, "JSON", string(data))
	}
	data, err := json.Marshal(Login{ClientID: "c", Username: "u", Password: hidden})
	if want := `{"client_id":"c","username":"u","password":"***"}`; err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	for _, v := range holders(t) {
		log.Info("a", zap.Any("v", v), zap.Reflect("r", v))
		log.Sugar().Infow("b", "v", v)
		log.Sugar().Infof("c %v %+v", v, v)
	}
	all := logs.All()
	if len(all) == 0 {
		t.Fatal("nothing was logged")
	}
	for _, e := range all {
		buf, err := encoder.EncodeEntry(e.Entry, e.Context)
		if err != nil {
			t.Fatal(err)
		}
		checkHidden(t, "log", buf.String())
		buf.Free()
	}
}

// checkHidden checks for the secret in the spellings that fmt and encoders have, and for a private key's innards.
func checkHidden(t *testing.T, how, text string) {
	t.Helper()
	hex := fmt.Sprintf("%x", hidden)
	spaced := fmt.Sprintf("% x", hidden)
	for _, spelling := range []string{hidden, hex, strings.ToUpper(hex), spaced, "Primes", "104 117 110"} {
		if strings.Contains(text, spelling) {
			t.Errorf("%s shows %q: %.80q", how, spelling, text)
		}
	}
}

func TestReveal(t *testing.T) {
	if s := Secret(hidden).Reveal(); s != hidden {
		t.Errorf("reveals %q", s)
	}
	if _, err := io.WriteString(io.Discard, Secret(hidden).String()); err != nil {
		t.Fatal(err)
	}
}
