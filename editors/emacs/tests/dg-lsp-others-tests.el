;;; dg-lsp-others-tests.el --- The mode among other packages  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Company and Evil need not be installed: their variables and hooks are bound.

;;; Code:

(require 'dg-lsp-tests-helpers)

(defvar company-candidates)
(defvar evil-local-mode)
(defvar evil-state)

(defmacro dg-lsp-tests-with-ghost (&rest body)
  "Run BODY in a file, with ghost text at point."
  (declare (indent 0))
  `(dg-lsp-tests-in "def f():\n    |\n"
     (dg-lsp-tests--type "return ")
     (dg-lsp-tests--ghost "width * height")
     ,@body))

;;;; Menus

(defvar dg-lsp-tests--menus
  (list (lambda ()
          (let ((completion-in-region-mode t))
            (run-hooks 'completion-in-region-mode-hook)))
        (lambda ()
          (let ((company-candidates '("a")))
            (run-hook-with-args 'company-completion-started-hook nil))))
  "What opens each kind of menu by itself, as its package does.")

(ert-deftest dg-lsp-tests-a-menu-that-opens-by-itself-hides-the-ghost ()
  (dolist (open dg-lsp-tests--menus)
    (dg-lsp-tests-with-ghost
      (funcall open)
      (should-not (dg-lsp-ghost-rest)))))

(ert-deftest dg-lsp-tests-a-menu-that-opens-stops-what-was-to-be-shown ()
  (dolist (open dg-lsp-tests--menus)
    (dg-lsp-tests-in "def f():\n    |\n"
      (dg-lsp-tests--type "return ")
      (should (memq dg-lsp--timer timer-list))
      (funcall open)
      (dg-lsp-tests--quiet)
      (dg-lsp-tests--type "late = ")
      (dg-lsp-tests--until (lambda () dg-lsp--request))
      (funcall open)
      (should-not dg-lsp--request)
      (dg-lsp-tests--quiet))))

(ert-deftest dg-lsp-tests-a-menu-that-closes-hides-nothing ()
  (dg-lsp-tests-with-ghost
    (run-hooks 'completion-in-region-mode-hook)
    (should (dg-lsp-ghost-rest))))

(ert-deftest dg-lsp-tests-the-preview-of-emacs-stands-alone ()
  (skip-unless (require 'completion-preview nil t))
  (dg-lsp-tests-with-ghost
    (setq-local completion-at-point-functions
                (list (lambda ()
                        (list (save-excursion (skip-syntax-backward "w") (point))
                              (point) '("widen")))))
    (completion-preview-mode 1)
    (dg-lsp-tests--type "wid")
    (should completion-preview-active-mode)
    (dg-lsp-tests--quiet)
    (dg-lsp-tests--press "TAB")
    (should (equal (dg-lsp-tests--line) "    return widen"))))

;;;; Evil

(ert-deftest dg-lsp-tests-only-where-evil-inserts-is-anything-asked ()
  (pcase-dolist (`(,state ,ghost) '((normal nil) (visual nil)
                                    (insert t) (emacs t)))
    (dg-lsp-tests-in "def f():\n    return|\n"
      (let ((evil-local-mode t) (evil-state state))
        (dg-lsp-tests--type " ")
        (if ghost (dg-lsp-tests--ghost "width * height")
          (dg-lsp-tests--quiet))))))

(ert-deftest dg-lsp-tests-to-leave-evil-s-insert-state-hides-the-ghost ()
  (dg-lsp-tests-with-ghost
    (run-hooks 'evil-insert-state-exit-hook)
    (should-not (dg-lsp-ghost-rest))))

(ert-deftest dg-lsp-tests-evil-s-undo-is-undo ()
  (dg-lsp-tests-in "|"
    (pcase-dolist (`(,this-command ,quiet) '((evil-undo t) (evil-redo t)
                                             (evil-delete-char nil)))
      (should (eq (and (dg-lsp--quiet-p) t) quiet)))))

(provide 'dg-lsp-others-tests)
;;; dg-lsp-others-tests.el ends here
