;;; dg-lsp.el --- Completions from a text-diffusion model, through Eglot  -*- lexical-binding: t; -*-

;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1") (eglot "1.9"))
;; Keywords: convenience, languages
;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Eglot has no in-line completion of its own.  dg-lsp therefore offers its
;; completion as an entry of the ordinary completion menu: call
;; `completion-at-point' (M-TAB), or use Corfu or Company.
;;
;;   (add-to-list 'load-path "/path/to/dg-lsp/editors/emacs")
;;   (require 'dg-lsp)
;;   (dg-lsp-setup 'python-mode 'c-mode)
;;
;; then M-x eglot in a buffer of these modes.  Eglot talks to one server for a
;; buffer: where you need another language server too, multiplex the two.

;;; Code:

(require 'eglot)

(defgroup dg-lsp nil
  "Completions from a text-diffusion model."
  :group 'eglot
  :prefix "dg-lsp-")

(defcustom dg-lsp-command '("dg-lsp")
  "The command that starts the language server, as a list of strings."
  :type '(repeat string))

(defcustom dg-lsp-settings nil
  "Settings of the server as a property list, for instance (:multiLine \"never\").
They are sent as `initializationOptions'."
  :type 'plist)

(defun dg-lsp-contact (&rest _)
  "Return what Eglot is to start: the command with its settings."
  (append dg-lsp-command (list :initializationOptions dg-lsp-settings)))

(defun dg-lsp-setup (&rest modes)
  "Let Eglot use dg-lsp in the major MODES."
  (dolist (mode modes)
    (setf (alist-get mode eglot-server-programs) #'dg-lsp-contact)))

(provide 'dg-lsp)
;;; dg-lsp.el ends here
